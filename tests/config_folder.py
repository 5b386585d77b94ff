"""A configuration on disk for the tests: three files, of which a test changes what it is about."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tmm_core import Config, ConfigError

#: The day the tests look at.
ON = date(2026, 11, 25)

HEAD = "[capacity]\nsystem_capacity = 500\noperating_threshold = 400\n"
TOML = """\
[capacity]
system_capacity = 500
operating_threshold = 400

[files]
allocations = "allocations.csv"
priority_list = "priority-list.toml"
"""
CSV = """\
user,category,user_ids,allocation
Northern Energy,large-supplier,90-B3-D5-1F-30-01-00-00 90-B3-D5-1F-30-01-00-01,200
Harbour Analytics,other,90-B3-D5-1F-30-02-00-00,20.5
"""
PRIORITY = """\
version = "7"
effective_from = 2026-11-01
approved_by = "the Panel"
source = "minutes"
srvs = [
  "2.2",
  "7.4",
]
"""


def write(
    folder: Path,
    *,
    toml: str | bytes = TOML,
    csv: str | bytes | None = CSV,
    priority: str | bytes | None = PRIORITY,
) -> Path:
    """Write the files; return the path of ``tmm.toml``."""
    for name, content in (("tmm.toml", toml), ("allocations.csv", csv), ("priority-list.toml", priority)):
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "tmm.toml"


def mistakes(path: Path, on: date = ON) -> list[str]:
    """Load a configuration that must be refused; return what is told, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        Config.load(path, on=on)
    return [str(mistake).replace(f"{path.parent}/", "") for mistake in caught.value.mistakes]
