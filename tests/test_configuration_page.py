"""``docs/configuration.md`` names every key, and only keys there are, with the defaults they have."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from tmm_core import Config
from tmm_core.policy.config_files import PRIORITY_KEYS, SECTIONS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")


def _sections() -> dict[str, str]:
    """The text of the page by section of ``tmm.toml``."""
    parts = re.split(r"^### `\[(\w+)\]`$|^## ", PAGE, flags=re.MULTILINE)
    return {name: parts[place + 1] for place, name in enumerate(parts) if place % 2 and name}


def test_every_key_of_every_section_is_in_its_table() -> None:
    assert set(_sections()) == set(SECTIONS)
    for section, text in _sections().items():
        rows = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
        assert rows == set(SECTIONS[section]), section


def test_the_defaults_are_true() -> None:
    defaults = {name: each.default for name, each in inspect.signature(Config).parameters.items()}
    rows = dict(
        re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", _sections()["mechanism"], flags=re.MULTILINE)
    )
    assert len(rows) == len(SECTIONS["mechanism"])
    for key, told in rows.items():
        default = defaults[SECTIONS["mechanism"][key]]
        assert told == f'`"{default}"`' if isinstance(default, str) else float(told) == default, key


def test_every_key_of_the_priority_list_is_shown() -> None:
    example = PAGE.split("## Priority list")[1].split("```")[1]
    assert re.findall(r"^(\w+) +=", example, flags=re.MULTILINE) == list(PRIORITY_KEYS)
