"""One digest names an allocations file, from the command that writes it to the report: by the commands themselves."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Mechanism
from tmm_core.operations import watch
from tmm_core.operations.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shared block needs Linux or macOS")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "allocation"
TOML = """\
[capacity]
system_capacity = 25000
operating_threshold = 20000
[files]
allocations = "allocations"
event_log = "events.db"
[unknown_users]
allocation = 50
[state]
shared = "./block"
"""


def test_the_digest_that_allocate_shows_is_that_of_check_status_events_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def tmm(*arguments: object) -> str:
        assert main([str(each) for each in arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    def figures(*arguments: object) -> Any:
        return json.loads(tmm(*arguments, "--json"))

    # A month long past, so that it is in force on whatever day this runs.
    toml, output = tmp_path / "tmm.toml", tmp_path / "allocations" / "2020-01-01.csv"
    asked = ("allocate", EXAMPLE / "portfolio.csv", "-p", EXAMPLE / "parameters.toml", "-o", output)
    text = tmm(*asked)
    shown = set(re.findall(r"(?:Users|2020-01-01\.csv), digest ([0-9a-f]{12})$", text, re.MULTILINE))
    assert len(shown) == 1, text
    digest = shown.pop()
    assert figures(*asked)["digest"] == digest
    toml.write_text(TOML, encoding="utf-8")
    assert f"digest {digest}" in tmm("check", toml)
    with Mechanism.open(toml) as mechanism:
        watcher = watch.start(mechanism)
        user, srv = mechanism.user("Northern Energy"), mechanism.srv("4.1.1")
        assert all(mechanism.admit(user, srv) for _ in range(10))
        assert figures("status", "-c", toml)["allocations"] == {
            "file": str(output), "digest": digest, "effective_from": "2020-01-01",
        }  # fmt: skip
        assert f"allocations  digest {digest} from 2020-01-01" in tmm("status", "-c", toml)
        watcher.stop()
    assert digest in tmm("events", tmp_path / "events.db")
    [log] = tmp_path.glob("events-*.db")
    month = log.stem.removeprefix("events-")
    report = figures("report", month, "-l", tmp_path / "events.db")
    assert [each["description"]["allocations_digest"] for each in report["versions"]] == [digest]
    tmm("report", month, "-l", tmp_path / "events.db", "-o", tmp_path / "report")
    assert digest in (tmp_path / "report" / "report.html").read_text("utf-8")
