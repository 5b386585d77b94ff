"""Where the block lives: memory of this process, or a mapped file that all processes of a host share."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tmm_core.memory.private import ALIGNMENT, private_block

if TYPE_CHECKING:
    from tmm_core.memory.header import Header, Layout
    from tmm_core.memory.place import path_of
    from tmm_core.memory.shared import SharedBlock

__all__ = ["ALIGNMENT", "Header", "Layout", "SharedBlock", "path_of", "private_block"]


# Of shared blocks: hashes, temporary folders, locks and maps, which a gateway of one process does without.
_LATER = {"Header": "header", "Layout": "header", "SharedBlock": "shared", "path_of": "place"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
