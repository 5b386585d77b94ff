"""The files beside a block: a new block in the making, the names of terms, and what was left over of either.

Names of the terms in force are in small immutable files ``PATH.ID.terms.GENERATION``: one is written before its
terms are put in force, and removed after the next ones are.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from tmm_core.errors import MemoryLayoutError
from tmm_core.memory.header import HEADER_BYTES, Header, Layout
from tmm_core.memory.place import allocate, create_file, read_text, write_text

__all__ = ["LARGER", "TermsFiles", "left_over", "make_file"]

#: In the name of a file that is to succeed another.
LARGER = ".larger"


def make_file(
    path: str, header: Header, layout: Layout, users: int, slabs: int, mark: str = ""
) -> tuple[int, str]:
    """Make the file of a block, under a name of its own; returns it and its path.

    Parameters
    ----------
    path : str
        Where the block is to be.
    header : Header
    layout : Layout
    users, slabs : int
        Slots for Users, and slabs, that get memory at once.
    mark : str
        Stands in the name.

    Raises
    ------
    MemoryLayoutError
        There is no room, or the folder may not be written to; nothing is left.
    """
    fd, temporary = create_file(path, mark)
    try:
        os.ftruncate(fd, header.file_bytes)
        allocate(fd, 0, HEADER_BYTES, path)
        ranges = layout.base_ranges(header.user_slots, header.srv_slots, users)
        for slab in range(slabs):
            ranges += layout.slab_ranges(header.user_slots, header.srv_slots, slab, users)
        for offset, nbytes in ranges:
            allocate(fd, HEADER_BYTES + offset, nbytes, path)
        os.pwrite(fd, header.packed(layout), 0)
    except OSError as error:
        os.unlink(temporary)
        os.close(fd)
        raise MemoryLayoutError(f"{path}: cannot be made: {error.strerror}") from None
    except MemoryLayoutError:
        os.unlink(temporary)
        os.close(fd)
        raise
    return fd, temporary


def left_over(path: str, block_id: str) -> list[str]:
    """Return the files beside a block that nobody needs, for who holds it alone: those of who died at it.

    Larger blocks that were not finished, and names of terms of another block than this.
    """
    place = Path(path)
    name, own, temporary = re.escape(place.name), block_id[:12], r"\.[0-9a-f]{16}\.new"
    form = re.compile(
        rf"{name}(?:{re.escape(LARGER)}\.(?P<larger>[0-9a-f]{{12}}){temporary}"
        rf"|\.(?P<terms>[0-9a-f]{{12}})\.terms\.\d{{1,18}}(?P<unfinished>{temporary})?)"
    )
    matches = []
    with contextlib.suppress(OSError):
        matches = [match for each in place.parent.iterdir() if (match := form.fullmatch(each.name))]
    # Who makes a first block beside this one is late, but lives: what it is writing is let alone.
    dead = {own, *(match["larger"] for match in matches if match["larger"])}
    found = [
        match
        for match in matches
        if match["larger"] or (match["terms"] in dead if match["unfinished"] else match["terms"] != own)
    ]
    # By the larger block one knows its terms: it goes last.
    return [str(place.parent / match[0]) for match in sorted(found, key=lambda match: bool(match["larger"]))]


class TermsFiles:
    """The files of one block's terms.

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
