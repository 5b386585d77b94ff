"""Past or invented traffic through the engine, and what became of it; the kinds of arrays it comes in."""

from typing import Any

import numpy as np

Users = np.ndarray[Any, np.dtype[np.uint32]]
Srvs = np.ndarray[Any, np.dtype[np.uint16]]
Decisions = np.ndarray[Any, np.dtype[np.uint8]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Raw = np.ndarray[Any, np.dtype[np.uint64]]
