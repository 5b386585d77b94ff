"""The first page of a shared block: what it is, who made it, and whether this process can use it.

Everything is checked on a private copy before a byte of the mapping is believed. The page ends with three words
that change (`WORDS_AT`): slots for Users that have memory, slabs that have, and which block has succeeded this
one (0: none). They are written under the block's lock only.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tmm_core.errors import MemoryLayoutError

__all__ = ["HEADER_BYTES", "WORDS_AT", "Header", "Layout", "boot_id", "time_namespace"]

HEADER_BYTES = 4096
WORDS_AT = 2048
_MAGIC = b"TMMBLOCK"
_ENDIAN = 0x01020304
_FORMAT = 2
# magic, byte order, format | layout, digest, User, SRV and slab slots, bytes | id, boot
# | time namespace, made at, made by | version | life
_FIELDS = struct.Struct("=8sII6Q16s40sQqq32s16s")
_CRC = struct.Struct("=I")
_MAX_SLOTS = 1 << 31

Ranges = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How this build of the engine lays a block out; the hall provides it.

    Attributes
    ----------
    version : int
    words : mapping of str to int
        Sizes, and the offset of every field.
    nbytes : callable
        (User slots, SRV slots, slabs) to bytes.
    base_ranges : callable
        (User slots, SRV slots, Users) to the two parts beside the slabs that so many Users take: (offset, bytes).
    slab_ranges : callable
        (User slots, SRV slots, slab, Users) to the parts of one slab: head and differences, and the counters of each
        outcome, which are tiles.
    tile_users : callable
        User slots to the Users of a tile.
    """

    version: int
    words: Mapping[str, int]
    nbytes: Callable[[int, int, int], int]
    base_ranges: Callable[[int, int, int], Ranges]
    slab_ranges: Callable[[int, int, int, int], Ranges]
    tile_users: Callable[[int], int]

    @property
    def digest(self) -> int:
        """A number that changes with any size or offset."""
        text = ";".join(f"{name}={value}" for name, value in sorted(self.words.items()))
        return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "little")


@dataclass(frozen=True, slots=True)
class Header:
    """What the first page says, once it has been believed.

    Attributes
    ----------
    user_slots, srv_slots, slab_slots, nbytes : int
    block_id : str
        Hexadecimal; names the files that belong to this block.
    boot_id, time_ns : str, int
        The boot of the machine and the time namespace whose monotonic clock the block is on.
    created_at, created_by : int
        Nanoseconds since 1970 (UTC) at which its counts began; process that made it.
    package : str
        Version of tmm-core that made it.
    life_id : str
        Hexadecimal; the same in all blocks that have succeeded one another, as their counts go on.
    """

    user_slots: int
    srv_slots: int
    slab_slots: int
    nbytes: int
    block_id: str
    boot_id: str
    time_ns: int
    created_at: int
    created_by: int
    package: str
    life_id: str

    @property
    def file_bytes(self) -> int:
        """Bytes of the file."""
        return HEADER_BYTES + self.nbytes

    def packed(self, layout: Layout) -> bytes:
        """Return the page."""
        body = _FIELDS.pack(
            _MAGIC, _ENDIAN, _FORMAT, layout.version, layout.digest, self.user_slots, self.srv_slots,
            self.slab_slots, self.nbytes, bytes.fromhex(self.block_id), self.boot_id.encode("ascii"),
            self.time_ns, self.created_at, self.created_by, self.package.encode("ascii", "replace")[:32],
            bytes.fromhex(self.life_id),
        )  # fmt: skip
        return (body + _CRC.pack(zlib.crc32(body))).ljust(HEADER_BYTES, b"\0")

    @classmethod
    def read(cls, page: bytes, size: int, path: str, layout: Layout) -> Header:
        """Check a private copy of the page against the size of the file and this build.

        Raises
        ------
        MemoryLayoutError
            It is not a block, not of this layout, not of this boot, cut short or damaged.
        """
        if len(page) < HEADER_BYTES:
            raise _fault(path, f"{len(page)} bytes", f"a block, at least {HEADER_BYTES} bytes")
        body = page[: _FIELDS.size]
        (magic, endian, form, version, digest, users, srvs, slabs, nbytes, block, boot, namespace, at, by,
         package, life) = _FIELDS.unpack(body)  # fmt: skip
        if magic != _MAGIC:
            raise _fault(path, f"a file that begins with {bytes(magic)!r}", f"a block ({_MAGIC!r})")
        if endian != _ENDIAN:
            raise _fault(path, "a block of a machine with another byte order", f"{sys.byteorder}-endian")
        made = f"made by tmm-core {_text(package)}"
        if form != _FORMAT:
            raise _fault(path, f"a header of format {form}", f"format {_FORMAT}")
        if zlib.crc32(body) != _CRC.unpack_from(page, _FIELDS.size)[0]:
            raise _fault(path, "a damaged header (its checksum is wrong)", "an intact one")
        if version != layout.version:
            raise _fault(path, f"a block of layout {version}, {made}", f"layout {layout.version}")
        if digest != layout.digest:
            raise _fault(
                path, f"layout digest {digest:016x}, {made}", f"{layout.digest:016x}: the same build"
            )
        if not (0 < users < _MAX_SLOTS and 0 < srvs <= 65_536 and 1 < slabs < _MAX_SLOTS):
            raise _fault(path, f"{users} slots for Users, {srvs} for SRVs, {slabs} slabs", "sizes in range")
        if nbytes != layout.nbytes(users, srvs, slabs):
            raise _fault(path, f"a block of {nbytes} bytes", f"{layout.nbytes(users, srvs, slabs)}")
        if size != HEADER_BYTES + nbytes:
            raise _fault(path, f"{size} bytes", f"{HEADER_BYTES + nbytes}: it was cut short or added to")
        found = cls(
            users, srvs, slabs, nbytes, block.hex(), _text(boot), namespace, at, by, _text(package), life.hex()
        )  # fmt: skip
        if found.boot_id != boot_id():
            raise _fault(path, f"a block of boot {found.boot_id or '?'}", f"this boot, {boot_id() or '?'}")
        if found.time_ns != time_namespace():
            raise _fault(path, f"a block of time namespace {found.time_ns}", f"this one, {time_namespace()}")
        return found


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", "replace")


def _fault(path: str, found: str, expected: str) -> MemoryLayoutError:
    return MemoryLayoutError(
        f"{path}: found {found}, expected {expected}: stop the processes that use it and remove it, "
        "or configure another name"
    )


def boot_id() -> str:
    """Return what names this boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:40]
    except OSError:
        return _sysctl("kern.bootsessionuuid") if sys.platform == "darwin" else ""


def time_namespace() -> int:
    """Return the number of the time namespace the monotonic clock is in; 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/time").st_ino
    except OSError:
        return 0


def _sysctl(name: str) -> str:
    size = ctypes.c_size_t(64)
    value = ctypes.create_string_buffer(size.value)
    library = ctypes.CDLL(None)
    if library.sysctlbyname(name.encode("ascii"), value, ctypes.byref(size), None, 0):
        return ""
    return value.value.decode("ascii", "replace")[:40]
