"""Engines over memory: of this process alone, shared by the processes of a host, or only looked at."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from tmm_core.answers import Decision
from tmm_core.memory import private_block
from tmm_core.policy.config import Config

try:
    from tmm_core._core import engine as native
except ImportError as error:  # pragma: no cover - only without the extension
    raise ImportError(
        f"tmm_core has no working native engine ({error}): install a wheel of tmm-core for this Python, or a C "
        "compiler and 'pip install --no-binary tmm-core tmm-core'; there is no slow substitute"
    ) from error

if TYPE_CHECKING:
    from tmm_core._core.engine import Engine as Engine
    from tmm_core._core.engine import Gate as Gate
    from tmm_core._core.engine import Kinds as Kinds
    from tmm_core._core.engine import Reception as Reception
    from tmm_core.memory import Layout, SharedBlock

__all__ = [
    "CALLS",
    "larger_block",
    "layout",
    "make_block",
    "native",
    "private_engine",
    "shared_engine",
    "watching_engine",
]


def _find_clock() -> None:
    """Have the engine call the clock where Linux keeps it, without the C library's way round (docs/decisions/0060).

    By `ctypes`, which NumPy has loaded: linked to the engine, `dlsym` would ask for the newest C library.
    """
    try:
        import ctypes

        kernel = ctypes.CDLL("linux-vdso.so.1", mode=os.RTLD_NOLOAD)
        library = ctypes.CDLL("libc.so.6", mode=os.RTLD_NOLOAD)
        known = hasattr(kernel, "__vdso_clock_gettime")
        found = getattr(kernel, "__vdso_clock_gettime" if known else "__kernel_clock_gettime")
        addresses = [ctypes.cast(each, ctypes.c_void_p).value for each in (found, library.clock_gettime)]
    except (ImportError, OSError, AttributeError):
        return  # another system, or a debugger that hides it
    native.call_clock(addresses[0] or 0, addresses[1] or 0)


if sys.platform == "linux":
    _find_clock()

#: The engine's own methods that a Mechanism has as attributes, and what ``help`` says of them.
CALLS = {
    name: f"{name}({arguments}) -> {answer}\n\n        {getattr(native.Engine, name).__doc__}"
    for name, arguments, answer in (
        ("admit", "user, srv", "Decision"),
        ("admit_at", "user, srv, now", "Decision"),
        ("admit_many", "users, srvs, out=None, now=None", "ndarray of uint8"),
        ("retry_after", "user, now=None", "float"),
    )
}

_SPARE_SLOTS = 1024
_WORKER_SLABS = 4  # threads that decide without the GIL at one time, beside those that hold it
_MANY_USERS = 20_000  # with more, counters are the memory: fewer slabs

# Of a shared block: address space costs nothing, memory is allocated for Users and workers there are.
_SHARED_USERS = 16_384
_SHARED_FIRST_USERS = 255  # and the unknown ones: a tile of the counters
_SHARED_SLABS = (16, 256)
_SHARED_BYTES = 1 << 35


def private_engine(config: Config, srvs: int, now: int) -> Engine:
    """Return an engine over memory of this process.

    Parameters
    ----------
    config : Config
    srvs : int
        Slots for SRVs.
    now : int
        Nanoseconds, monotonic.
    """
    users = (config.max_users or max(_SPARE_SLOTS, 4 * len(config.users))) + 1
    slabs = 1 + (_WORKER_SLABS if users <= _MANY_USERS else 1)
    block = private_block(native.block_nbytes(users, srvs, slabs))
    return native.Engine(block, users, srvs, slabs, tuple(Decision), 0, slabs, now)


@cache
def layout() -> Layout:
    """Return how this build lays a block out."""
    # Here and below: a gateway of one process need not load what shared blocks need.
    from tmm_core.memory import Layout

    words = native.layout_words()
    return Layout(
        version=words["LAYOUT_VERSION"],
        words=words,
        nbytes=native.block_nbytes,
        base_ranges=native.base_ranges,
        slab_ranges=native.slab_ranges,
        tile_users=native.tile_users,
    )


def make_block(config: Config, path: str, srvs: int, package: str) -> SharedBlock:
    """Make a shared block large enough for a configuration and much more; nobody sees it before `publish`.

    Raises
    ------
    MemoryLayoutError
        There is no room for it.
    """
    from tmm_core.memory import SharedBlock

    first = max(config.max_users, _SHARED_FIRST_USERS, 2 * len(config.users)) + 1
    user_slots, slabs = _reserve(config.max_users, len(config.users), srvs)
    return SharedBlock.create(
        path, layout(), users=first, user_slots=user_slots, srv_slots=srvs, slab_slots=slabs, package=package
    )


def larger_block(block: SharedBlock, max_users: int, users: int, srvs: int, package: str) -> SharedBlock:
    """Make a block with all that is in another, large enough for so many Users and much more.

    Nobody sees it before `succeed`; the other one is held `alone`.

    Raises
    ------
    MemoryLayoutError
        There is no room for it; nothing has changed.
    """
    from tmm_core.memory import larger

    user_slots, slabs = _reserve(max_users, users, srvs)
    return larger(block, user_slots=user_slots, srv_slots=srvs, slab_slots=slabs, package=package)


def _reserve(max_users: int, users: int, srvs: int) -> tuple[int, int]:
    """Return the slots for Users, with that of the unknown ones, and the slabs of a block for so many Users."""
    user_slots = max(max_users, _SHARED_USERS, 8 * users) + 1
    slab = native.block_nbytes(user_slots, srvs, 2) - native.block_nbytes(user_slots, srvs, 1)
    fewest, most = _SHARED_SLABS
    return user_slots, min(max(_SHARED_BYTES // slab, fewest), most)


def shared_engine(block: SharedBlock, now: int) -> Engine:
    """Return an engine of this process over a shared block: it counts in a slab of its own, or in the common one."""
    header, slab = block.header, block.claim_first()
    return native.Engine(
        block.memory, header.user_slots, header.srv_slots, header.slab_slots, tuple(Decision), slab, slab + 1,
        now, block,
    )  # fmt: skip


def watching_engine(block: SharedBlock) -> Engine:
    """Return an engine that only looks at a shared block."""
    header = block.header
    return native.Engine(
        block.memory, header.user_slots, header.srv_slots, header.slab_slots, tuple(Decision), 0, 0, 0
    )
