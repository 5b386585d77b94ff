"""What the tests of the core share: extensions that decide without the GIL, built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from extensions import build_extensions


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the extensions `from_cython` and `from_c`."""
    pytest.importorskip(
        "Cython", reason="building an extension against the doors needs Cython and a compiler"
    )
    folder = tmp_path_factory.mktemp("doors")
    build_extensions(folder)
    return folder
