"""What must not be believed: links, other accounts, other layouts, other boots, damaged and cut blocks, full disks."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tmm_core import Config, Mechanism, MemoryLayoutError
from tmm_core import engines as hall
from tmm_core.memory import header as header_module
from tmm_core.memory import path_of
from tmm_core.memory.header import _CRC, _FIELDS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shared block needs Linux or macOS")
ROOT = os.name != "nt" and os.geteuid() == 0


def config(path: Path) -> Config:
    return Config(500, 400, allocations={"Northern Energy": 300.0}, shared=str(path))


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """A block whose maker has gone."""
    Mechanism.open(config(tmp_path / "block")).close()
    return tmp_path / "block"


def resealed(page: bytes, change: Callable[[list[object]], None]) -> bytes:
    """The header with fields changed and its checksum put right: what another build would have written."""
    import zlib

    fields: list[object] = list(_FIELDS.unpack(page[: _FIELDS.size]))
    change(fields)
    body = _FIELDS.pack(*fields)
    return body + _CRC.pack(zlib.crc32(body)) + page[len(body) + _CRC.size :]


def field(index: int, value: object) -> Callable[[list[object]], None]:
    def change(fields: list[object]) -> None:
        fields[index] = value

    return change


@pytest.mark.parametrize(
    ("change", "found", "expected"),
    [
        (field(0, b"\\x7fELFabcd"), "a file that begins with", "a block"),
        (field(1, 0x04030201), "a block of a machine with another byte order", "endian"),
        (field(2, 9), "a header of format 9", "format 2"),
        (field(3, 7), "a block of layout 7, made by tmm-core", "layout 4"),
        (field(4, 12345), "layout digest 0000000000003039", "the same build"),
        (field(5, 1 << 40), "1099511627776 slots for Users", "sizes in range"),
        (field(7, 1), "16385 slots for Users, 130 for SRVs, 1 slabs", "sizes in range"),
        (field(8, 4096), "a block of 4096 bytes", " "),
        (field(10, b"another-boot"), "a block of boot another-boot", "this boot"),
        (field(11, 4), "a block of time namespace 4", "this one"),
    ],
)
def test_a_header_of_something_else_is_refused_naming_found_and_expected(
    block: Path, change: Callable[[list[object]], None], found: str, expected: str
) -> None:
    with block.open("r+b") as file:
        page = file.read(4096)
        file.seek(0)
        file.write(resealed(page, change))
    with pytest.raises(MemoryLayoutError) as error:
        Mechanism.open(config(block))
    assert str(block) in str(error.value)
    assert f"found {found}" in str(error.value)
    assert expected in str(error.value).split("expected", 1)[1]


def test_the_sizes_are_read_from_the_header_with_every_offset_of_the_engine() -> None:
    words = hall.layout().words
    source = (Path(header_module.__file__).parents[1] / "_core" / "layout.pxd").read_text(encoding="utf-8")
    for struct in ("Settings", "Words", "Aside", "Control", "SlabHead"):
        body = source.split(f"cdef struct {struct}:", 1)[1].split("\n\n\n", 1)[0]
        lines = [line.split("#")[0].split() for line in body.splitlines()[1:]]
        names = [line[1].split("[")[0] for line in lines if len(line) == 2]
        assert names, struct
        assert [name for name in words if name.startswith(f"{struct}.")] == [
            f"{struct}.{each}" for each in names
        ]


def test_any_other_offset_is_another_layout(block: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in hall.layout().words:
        moved = dataclasses.replace(
            hall.layout(), words={**hall.layout().words, name: hall.layout().words[name] + 8}
        )
        assert moved.digest != hall.layout().digest, name
    monkeypatch.setattr("tmm_core.mechanism.layout", lambda: moved)
    with pytest.raises(MemoryLayoutError, match="layout digest"):
        Mechanism.open(config(block))


@pytest.mark.parametrize("size", [0, 100, 4096, 8192], ids=lambda size: f"{size}-bytes")
def test_a_block_cut_short_is_refused(block: Path, size: int) -> None:
    os.truncate(block, size)
    with pytest.raises(MemoryLayoutError, match=f"found {size} bytes, expected"):
        Mechanism.open(config(block))


def test_a_header_with_any_bit_changed_is_refused(block: Path, seed: int) -> None:
    page = block.read_bytes()[:4096] if block.stat().st_size < 1 << 20 else block.open("rb").read(4096)
    used = _FIELDS.size + _CRC.size
    source = random.Random(seed)
    for _ in range(300):
        damaged = bytearray(page)
        damaged[source.randrange(used)] ^= 1 << source.randrange(8)
        with block.open("r+b") as file:
            file.write(damaged)
        with pytest.raises(MemoryLayoutError, match="found"):
            Mechanism.open(config(block))


def test_a_planted_symlink_is_not_followed(tmp_path: Path, block: Path) -> None:
    (tmp_path / "planted").symlink_to(block)
    with pytest.raises(MemoryLayoutError, match="planted: found a symbolic link, expected a file"):
        Mechanism.open(config(tmp_path / "planted"))
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MemoryLayoutError, match="found a symbolic link"):
        Mechanism.open(config(tmp_path / "dangling"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_block_others_may_read_is_refused(block: Path) -> None:
    block.chmod(0o644)
    with pytest.raises(MemoryLayoutError, match="found mode 0644, expected 0600"):
        Mechanism.open(config(block))


@pytest.mark.skipif(not ROOT, reason="giving a file away needs root")
def test_a_block_of_another_account_is_refused(block: Path) -> None:
    os.chown(block, 12345, -1)
    with pytest.raises(MemoryLayoutError, match="found a file of account 12345, expected account 0"):
        Mechanism.open(config(block))


def test_a_missing_and_a_read_only_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(MemoryLayoutError, match=r"cannot be made in .*nowhere: No such file or directory"):
        Mechanism.open(config(tmp_path / "nowhere" / "block"))
    with pytest.raises(MemoryLayoutError, match="cannot be made in /proc: "):
        Mechanism.open(config(Path("/proc/block")))


def test_a_name_is_a_file_of_mode_0600_in_a_folder_of_mode_0700() -> None:
    name = f"test-{os.getpid()}"
    config_of = dataclasses.replace(config(Path("x")), shared=name)
    with Mechanism.open(config_of) as mechanism:
        assert mechanism.block is not None
        path = Path(mechanism.block.path)
        try:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        finally:
            for each in path.parent.glob(f"{name}*"):
                each.unlink()
    with pytest.raises(MemoryLayoutError, match="is no name of a block"):
        path_of("..")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or not ROOT:
        pytest.skip("mounting a small disk needs root")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"no small disk: {made.stderr!r}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(small_disk: Path) -> None:
    (small_disk / "fill").write_bytes(bytes(4_000_000))
    with pytest.raises(MemoryLayoutError, match=r"no room for .* bytes more: .* are free: give it more"):
        Mechanism.open(config(small_disk / "block"))
    assert [each.name for each in small_disk.iterdir()] == ["fill"]


def test_a_worker_finds_no_room_for_a_slab_and_counts_in_the_common_one(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Mechanism.open(config(small_disk / "block")) as first:
        free = shutil.disk_usage(small_disk).free
        (small_disk / "fill").write_bytes(bytes(free - 100_000))
        with caplog.at_level(logging.WARNING), Mechanism.open(config(small_disk / "block")) as second:
            assert second.block is not None
            assert second.block.slabs == frozenset()
            assert [bool(second.admit(second.user("Northern Energy"), 5)) for _ in range(9)] == [True] * 9
            assert "common slab" in caplog.text
        assert first.snapshot().counts.sum() == 9
        many = {f"User {number}": 0.01 for number in range(5000)}
        with pytest.raises(MemoryLayoutError, match="no room"):
            first.apply(dataclasses.replace(first.config, allocations=many))
        assert first.snapshot().users == ["(unknown)", "Northern Energy"], "nothing is half applied"


def test_a_gateway_that_asks_for_it_goes_on_alone_and_says_so_loudly(
    block: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(block, 100)
    with caplog.at_level(logging.ERROR), Mechanism.open(config(block), on_block_error="private") as mechanism:
        assert mechanism.block is None
        assert mechanism.block_error is not None
        assert "found 100 bytes" in mechanism.block_error
        assert mechanism.admit(mechanism.user("Northern Energy"), 5)
    assert "NOT SHARED" in caplog.text
    with pytest.raises(ValueError, match="on_block_error"):
        Mechanism.open(config(block), on_block_error="ignore")


def test_it_says_so_also_where_nobody_configures_logging(block: Path) -> None:
    os.truncate(block, 100)
    code = f"from tmm_core import *; Mechanism.open(Config(5, 4, shared={str(block)!r}), on_block_error='private')"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stderr.startswith("NOT SHARED: "), said.stderr


def test_damaged_names_are_refused_at_the_start_and_survived_later(
    block: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Mechanism.open(config(block)) as mechanism, Mechanism.open(config(block)) as other:
        slot = other.user("Northern Energy")
        other.apply(dataclasses.replace(other.config, operating_threshold=450))
        terms = next(block.parent.glob("block.*.terms.2"))
        terms.write_bytes(b"{}")
        with pytest.raises(MemoryLayoutError, match="found names that cannot be read"):
            Mechanism.open(config(block))
        assert mechanism.user("Northern Energy") == slot
        assert mechanism.admit(slot, 5)
        assert "cannot be read, older ones stay" in caplog.text


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_million_unknown_users_cost_no_memory(block: Path) -> None:
    with Mechanism.open(config(block)) as mechanism:
        user, admit = mechanism.user, mechanism.admit_at
        for number in range(1000):
            admit(user(f"id-{number}"), 5, number)
        before, allocated = resident(), os.stat(block).st_blocks
        for number in range(1000, 1_000_000):
            admit(user(f"id-{number}"), 5, number)
        # A table of a million names would take 50 MB.
        assert resident() - before < 4_000_000
        assert os.stat(block).st_blocks == allocated
        assert mechanism.snapshot(10**6).counts[0].sum() == 1_000_000
