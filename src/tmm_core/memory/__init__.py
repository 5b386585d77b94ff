"""Where the block lives: memory of this process, or a mapped file that all processes of a host share."""

from __future__ import annotations

from tmm_core.memory.header import Header, Layout
from tmm_core.memory.place import path_of
from tmm_core.memory.private import ALIGNMENT, private_block
from tmm_core.memory.shared import SharedBlock

__all__ = ["ALIGNMENT", "Header", "Layout", "SharedBlock", "path_of", "private_block"]
