"""What is written in a block: to say that a call has changed no byte of it, nor any file beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_PIECE = 4096


def written(path: Path) -> dict[tuple[str, int], bytes]:
    """Return all that is not zero in a block and the files beside it: by name and offset, in pieces of 4 KB.

    A block is a sparse file of some gigabytes: only what is there is read.
    """
    found: dict[tuple[str, int], bytes] = {}
    for file in sorted(path.parent.glob(f"{path.name}*")):
        found[file.name, -1] = b"%d" % file.stat().st_blocks
        with file.open("rb") as opened:
            for begin, end in _parts(opened.fileno()):
                for offset in range(begin, end, _PIECE):
                    piece = os.pread(opened.fileno(), min(_PIECE, end - offset), offset)
                    if piece.strip(b"\0"):
                        found[file.name, offset] = piece
    return found


def _parts(fd: int) -> list[tuple[int, int]]:
    """The parts of a file that are no holes."""
    parts, end = [], 0
    while True:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return parts
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        parts.append((begin, end))
