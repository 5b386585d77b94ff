"""Names of the terms in force, in small immutable files beside a block: ``PATH.ID.terms.GENERATION``.

A file is written before its terms are put in force, and removed after the next ones are.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from tmm_core.errors import MemoryLayoutError
from tmm_core.memory.place import read_text, write_text

__all__ = ["TermsFiles"]


class TermsFiles:
    """The files of one block.

    Parameters
    ----------
    path : str
        Of the block.
    block_id : str
        Keeps them apart from those of another block that had the name.
    """

    __slots__ = ("_path", "_stem")

    def __init__(self, path: str, block_id: str) -> None:
        self._path = path
        self._stem = f"{path}.{block_id[:12]}.terms."

    def write(self, generation: int, text: bytes) -> None:
        """Write the names of terms about to be put in force; call it while `changing`."""
        write_text(f"{self._stem}{generation}", text)

    def forget(self, generation: int | None = None) -> None:
        """Remove the names of the terms before these; of all by default."""
        place = Path(self._stem)
        form = re.compile(re.escape(place.name) + r"(\d{1,18})")
        with contextlib.suppress(OSError):
            for each in place.parent.iterdir():
                match = form.fullmatch(each.name)
                if match and (generation is None or int(match[1]) < generation):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(each)

    def read(self, generation: Callable[[], int]) -> tuple[int, bytes]:
        """Return the generation in force and the names of its terms.

        Parameters
        ----------
        generation : callable
            Reads the generation in force.

        Raises
        ------
        MemoryLayoutError
            They are gone.
        """
        while True:
            found = generation()
            try:
                return found, read_text(f"{self._stem}{found}")
            except FileNotFoundError:
                # Others have been put in force, and these are gone: look again.
                if generation() == found:
                    raise MemoryLayoutError(
                        f"{self._path}: found no names of generation {found}, expected {self._stem}{found}"
                    ) from None
