"""A block is succeeded by a larger one: a new file, with all that was in the old one, that takes its name.

    1  the old block is held alone: nobody counts in it, and nobody can begin to
    2  a new file is made beside it, and everything carried over
    3  one rename gives it the name: before it the old block is in force, untouched, and after it the new one
    4  a word in the old one says so, to whoever still looks at it

Slots keep their numbers, and so do SRVs and slabs: what a dead process has counted, and what it had not yet
charged, waits for its successor in the slab of the same number.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import replace
from typing import Any

import numpy as np

from tmm_core.errors import MemoryLayoutError
from tmm_core.memory.files import LARGER, left_over
from tmm_core.memory.shared import SharedBlock

__all__ = ["larger", "succeed"]


def larger(
    old: SharedBlock, *, user_slots: int, srv_slots: int, slab_slots: int, package: str = ""
) -> SharedBlock:
    """Make a block with all that is in another, which must be held `alone`; nobody sees it before `succeed`.

    Parameters
    ----------
    old : SharedBlock
    user_slots, srv_slots, slab_slots : int
        Slots that get address space; never fewer than there are.
    package : str
        Version of this package.

    Raises
    ------
    MemoryLayoutError
        There is no room, or the folder may not be written to; nothing has changed.
    """
    for name in left_over(old.path, old.header.block_id):
        with contextlib.suppress(OSError):
            os.unlink(name)
    users, slabs = old.ready
    user_slots, srv_slots = max(user_slots, old.header.user_slots), max(srv_slots, old.header.srv_slots)
    slab_slots = max(slab_slots, slabs, 2)
    block_id = secrets.token_hex(16)
    header = replace(
        old.header, user_slots=user_slots, srv_slots=srv_slots, slab_slots=slab_slots,
        nbytes=old.layout.nbytes(user_slots, srv_slots, slab_slots),
        block_id=block_id, created_by=os.getpid(), package=package,
    )  # fmt: skip
    new = SharedBlock.make(
        old.path, header, old.layout, users=users, slabs=slabs, mark=f"{LARGER}.{block_id[:12]}"
    )
    try:
        _carry_over(old, new)
    except BaseException:
        new.discard()
        raise
    return new


def _carry_over(old: SharedBlock, new: SharedBlock) -> None:
    """Copy every word that has memory to its place in the new block."""
    words, (users, slabs) = old.layout.words, old.ready
    has, old_srvs = new.header, old.header.srv_slots
    control, line = words["Control"], words["LINE"]
    new.memory[:control] = old.memory[:control]
    sizes = new.memory[:control].view(np.int64)
    for name in ("user_slots", "srv_slots", "slab_slots", "nbytes"):
        sizes[words[f"Control.{name}"] // 8] = getattr(has, name)
    # Cost and priority of every SRV, in two halves; an SRV that is new costs 1 until terms are put in force.
    before, after = (
        block.memory[control : control + 8 * block.header.srv_slots].view(np.uint32).reshape(2, -1)
        for block in (old, new)
    )
    after[:, :old_srvs] = before
    after[:, old_srvs:] = 2
    for (begin, nbytes), (to, there) in zip(_by_user(old, users), _by_user(new, users), strict=True):
        assert nbytes == there == users * line
        new.memory[to : to + nbytes] = old.memory[begin : begin + nbytes]
    for slab in range(slabs):
        _carry_slab_over(old, new, slab, users)


def _carry_slab_over(old: SharedBlock, new: SharedBlock, slab: int, users: int) -> None:
    parts, places = (
        block.layout.slab_ranges(block.header.user_slots, block.header.srv_slots, slab, users)
        for block in (old, new)
    )
    (begin, nbytes), (to, _) = parts[0], places[0]
    new.memory[to : to + nbytes] = old.memory[begin : begin + nbytes]
    for part, place in zip(parts[1:], places[1:], strict=True):
        tiles, larger_ones = _tiles(old, part), _tiles(new, place)
        for number, tile in enumerate(tiles):
            columns, size = tile.shape
            into, at = divmod(number * size, larger_ones.shape[2])
            larger_ones[into, :columns, at : at + size] = tile


def _tiles(block: SharedBlock, part: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The counters of one outcome in a slab: by tile, column (the units, then every SRV) and User of the tile."""
    begin, nbytes = part
    header, line = block.header, block.layout.words["LINE"]
    users = block.layout.tile_users(header.user_slots)
    cells = block.memory[begin : begin + nbytes].view(np.int64)
    return cells.reshape(-1, 1 + header.srv_slots, users + line // 8)[:, :, :users]


def _by_user(block: SharedBlock, users: int) -> list[tuple[int, int]]:
    """Where the two lines of so many Users are: (offset, bytes)."""
    header, layout = block.header, block.layout
    (_, words), _ = layout.base_ranges(header.user_slots, header.srv_slots, 0)
    (_, end), aside = layout.base_ranges(header.user_slots, header.srv_slots, users)
    return [(words, end - words), aside]


def succeed(new: SharedBlock, old: SharedBlock) -> None:
    """Give a block, with its terms in force, the name of the old one, which is still held `alone`.

    Raises
    ------
    MemoryLayoutError
        It cannot have it; the old block stays in force.
    """
    if not old.has_its_name:
        raise MemoryLayoutError(f"{old.path}: the block was removed while it was made larger: start again")
    new.rename()
    # Whoever dies before this line leaves a block whose name another file has: that tells the same.
    old.tell_successor(new.header)
    old.terms.forget()
