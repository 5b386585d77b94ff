"""An engine over memory that the test holds, and where its words lie: read from layout.pxd, not copied."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tmm_core import Config, Decision
from tmm_core._core import engine as native
from tmm_core.mechanism import UNKNOWN, terms_of
from tmm_core.memory import private_block
from tmm_core.policy.service_requests import srv_codes

LAYOUT = Path(native.__file__).with_name("layout.pxd")
Words = np.ndarray[Any, np.dtype[np.int64]]


@cache
def fields(struct: str) -> dict[str, int]:
    """Index of each 64-bit word of a struct."""
    body = re.search(rf"cdef struct {struct}:.*?\n(.*?)\n\n", LAYOUT.read_text("utf-8"), re.DOTALL)
    assert body is not None
    found, index = {}, 0
    for line in body[1].splitlines():
        match = re.match(r"\s+(?:int64_t|(Settings)) (\w+)(?:\[(\d+)\])?", line)
        if match:
            found[match[2]] = index
            index += int(match[3] or 1) * (settings_words() if match[1] else 1)
    found["(end)"] = index
    return found


def column(name: str) -> int:
    """Where a word is in the two lines of a User."""
    return fields("Words")[name] if name in fields("Words") else 8 + fields("Aside")[name]


def settings_words() -> int:
    return fields("Settings")["(end)"]


class Block:
    """One engine, its memory, and the words in it."""

    def __init__(self, config: Config, *, now: int = 0, slabs: int = 3, spare_slots: int = 0) -> None:
        self.names = [UNKNOWN, *config.users]
        self.srvs = [UNKNOWN, *srv_codes()]
        users = len(self.names) + spare_slots
        self.memory = private_block(native.block_nbytes(users, len(self.srvs), slabs))
        self.users = users
        self.slabs = slabs
        self.engine = native.Engine(self.memory, users, len(self.srvs), slabs, tuple(Decision), 0, slabs, now)
        self.apply(config, now)
        self.all: Words = self.memory[: len(self.memory) // 8 * 8].view(np.int64)

    def apply(self, config: Config, now: int) -> None:
        """Put a configuration with the same Users in force."""
        self.engine.apply(*terms_of(config, self.names, self.srvs), now)

    @property
    def control(self) -> Words:
        """The words that decisions and ticks write, without magic, sizes and settings."""
        where = fields("Control")
        return self.all[where["generation"] : where["settings"]]

    @property
    def words(self) -> Words:
        """By User: a copy of its two lines; `column` says where what is."""
        return np.hstack(self._lines)

    @property
    def _lines(self) -> list[Words]:
        (_, end), (aside, nbytes) = native.base_ranges(self.users, len(self.srvs), self.users)
        return [self.all[at // 8 : (at + nbytes) // 8].reshape(self.users, 8) for at in (end - nbytes, aside)]

    def word(self, name: str) -> int:
        return int(self.all[fields("Control")[name]])

    def set(self, name: str, value: int) -> None:
        self.all[fields("Control")[name]] = value

    def set_user(self, user: int, name: str, value: int) -> None:
        line, at = divmod(column(name), 8)
        self._lines[line][user, at] = value

    def pending(self) -> int:
        """Units all workers hold back."""
        begin = native.block_nbytes(self.users, len(self.srvs), 0) // 8
        size = native.block_nbytes(self.users, len(self.srvs), 1) // 8 - begin
        return sum(
            int(self.all[begin + slab * size + fields("SlabHead")["pending"]]) for slab in range(self.slabs)
        )
