"""Compress wheels once more, with zopfli: the same files and the same RECORD, three percent less to load.

It takes as long as the build itself, so only what is published is compressed so. The new wheel takes the place of
the old one after each of its files has been read back and compared.
"""

from __future__ import annotations

import os
import struct
import sys
import zipfile
from pathlib import Path

from zopfli.zlib import compress

LOCAL = struct.Struct("<4s5H3I2H")  # APPNOTE 4.3.7
CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
END = struct.Struct("<4s4H2IH")  # 4.3.16
UTF8 = 0x800
DEFLATED = 8


def recompressed(wheel: Path) -> bytes:
    """Return a wheel with each file compressed as far as deflate goes, all else as it was."""
    body, directory = bytearray(), bytearray()
    with zipfile.ZipFile(wheel) as old:
        entries = old.infolist()
        for entry in entries:
            data = old.read(entry)
            packed = compress(data)[2:-4]  # without the two ends of zlib
            name = entry.filename.encode("utf-8")
            year, month, day, hour, minute, second = entry.date_time
            time = hour << 11 | minute << 5 | second // 2
            date = (year - 1980) << 9 | month << 5 | day
            about = (UTF8, DEFLATED, time, date, entry.CRC, len(packed), len(data), len(name))
            directory += CENTRAL.pack(
                b"PK\1\2", 3 << 8 | 20, 20, *about, 0, 0, 0, 0, entry.external_attr, len(body)
            )
            directory += name
            body += LOCAL.pack(b"PK\3\4", 20, *about, 0) + name + packed
    end = END.pack(b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return bytes(body + directory + end)


def replace(wheel: Path) -> None:
    """Put the recompressed wheel in the place of the old one."""
    part = wheel.with_suffix(".part")
    part.write_bytes(recompressed(wheel))
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(part) as new:
        for one, other in zip(old.infolist(), new.infolist(), strict=True):
            kept = ("filename", "date_time", "external_attr", "CRC", "file_size")
            wrong = [name for name in kept if getattr(one, name) != getattr(other, name)]
            if wrong or old.read(one) != new.read(other):
                raise SystemExit(f"{wheel}: {one.filename} is not the same compressed again: {wrong}")
    before = wheel.stat().st_size
    os.replace(part, wheel)
    print(f"{wheel.name}: {before:,} bytes, compressed again {wheel.stat().st_size:,}")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        replace(Path(name))
