"""Reading ``tmm.toml``, allocations and priority list: right as a whole, or refused with every mistake."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from config_folder import CSV, HEAD, ON, PRIORITY, TOML, mistakes, write

from tmm_core import Config, ConfigError, Mechanism, PriorityList
from tmm_core.policy.toml_places import LARGEST_FILE

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "config"


def test_a_configuration_is_read_whole(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path), on=ON)
    assert (config.system_capacity, config.operating_threshold, config.release_threshold) == (500, 400, 380)
    assert dict(config.allocations) == {"Northern Energy": 200.0, "Harbour Analytics": 20.5}
    assert dict(config.user_ids) == {
        "90-B3-D5-1F-30-01-00-00": "Northern Energy",
        "90-B3-D5-1F-30-01-00-01": "Northern Energy",
        "90-B3-D5-1F-30-02-00-00": "Harbour Analytics",
    }
    assert dict(config.categories) == {"Northern Energy": "large-supplier", "Harbour Analytics": "other"}
    assert config.priority == PriorityList(("2.2", "7.4"), "7", date(2026, 11, 1), "the Panel", "minutes")
    assert config.source == str(tmp_path / "tmm.toml")
    assert config.allocations_file == str(tmp_path / "allocations.csv")


def test_every_key_of_every_section_reaches_the_configuration(tmp_path: Path) -> None:
    toml = """\
    [capacity]
    system_capacity = 500
    operating_threshold = 400.5
    release_threshold = 300
    [mechanism]
    mode = "observe"
    sharing = "first-come"
    activation_s = 0.5
    hold_s = 20
    burst_s = 2
    max_retry_after_s = 60
    tick_s = 0.02
    spare_weight = 3
    [files]
    event_log = "log/events.db"
    [unknown_users]
    allocation = 7
    [costs]
    "4.8.1" = 4
    [state]
    shared = "run/tmm"
    max_users = 9
    [cluster]
    url = "redis://127.0.0.1:6379/0"
    """
    config = Config.load(write(tmp_path, toml=toml), on=ON)
    expected = {
        "release_threshold": 300.0, "operating_threshold": 400.5, "mode": "observe", "sharing": "first-come",
        "activation_s": 0.5, "hold_s": 20.0, "burst_s": 2.0, "max_retry_after_s": 60.0, "tick_s": 0.02,
        "spare_weight": 3.0, "event_log": str(tmp_path / "log/events.db"), "unknown_allocation": 7.0,
        "shared": str(tmp_path / "run/tmm"), "max_users": 9, "cluster_url": "redis://127.0.0.1:6379/0",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected
    assert dict(config.costs) == {"4.8.1": 4}


def test_a_shared_block_may_be_a_name(tmp_path: Path) -> None:
    config = Config.load(write(tmp_path, toml=TOML + '[state]\nshared = "tmm"\n'), on=ON)
    assert config.shared == "tmm"


def test_a_path_of_the_block_is_a_path_wherever_the_command_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, toml=TOML + '[state]\nshared = "./block"\n')
    monkeypatch.chdir(tmp_path)
    # "block" would be a name: another block than the one the gateway with the whole path in its command has.
    assert Config.load("tmm.toml", on=ON).shared == str(tmp_path / "block")


def test_byte_order_marks_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    plain = Config.load(write(tmp_path), on=ON)
    dressed = {
        name: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
        for name, text in {"toml": TOML, "csv": CSV, "priority": PRIORITY}.items()
    }
    loaded = Config.load(write(tmp_path, **dressed), on=ON)
    # The digest is of the file's bytes, and those are others.
    assert loaded.allocations_digest != plain.allocations_digest
    assert replace(loaded, allocations_digest=plain.allocations_digest) == plain


def test_a_last_line_without_a_line_end_counts(tmp_path: Path) -> None:
    assert Config.load(write(tmp_path, csv=CSV.rstrip("\n")), on=ON).users == (
        "Northern Energy",
        "Harbour Analytics",
    )


def test_the_files_of_a_path_with_a_space_and_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    write(folder)
    monkeypatch.chdir(tmp_path)
    assert Config.load("a b/tmm.toml", on=ON).users == ("Northern Energy", "Harbour Analytics")


# --- All mistakes at once


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    """Lesson 12: one duplicate key, and a proxy silently ignored the whole new configuration."""
    toml = """\
# a comment
[capacity]
system_capacity = 500
operating_threshold = 520

[mechanism]
hold_s = 10
holds_s = 5
hold_s = 20

[files]
allocations = "allocations.csv"
priority_list = "priority-list.toml"
"""
    csv = CSV + "Harbour Analytics,other,,1\nFenland,small-supplier,,-3\n"
    priority = PRIORITY.replace('"7.4"', '"99.9"').replace("source", "sauce")
    assert mistakes(write(tmp_path, toml=toml, csv=csv, priority=priority)) == [
        "tmm.toml:4:23: operating_threshold 520 is above system_capacity 500",
        "tmm.toml:8:1: unknown key 'holds_s' in [mechanism] (did you mean 'hold_s'?)",
        "tmm.toml:9:1: key 'hold_s' is set twice, first in line 7",
        "allocations.csv:4:1: User 'Harbour Analytics' is listed twice, first in line 3",
        "allocations.csv:5:25: allocation -3 must be 0 or more",
        "priority-list.toml:4:1: unknown key 'sauce' in a priority list (did you mean 'source'?)",
        "priority-list.toml:7:3: '99.9' is not an SRV or a Service Reference of the catalogue",
    ]


def test_the_error_names_file_line_and_field(tmp_path: Path) -> None:
    path = write(tmp_path, toml=TOML.replace("400", "520"))
    with pytest.raises(ConfigError) as caught:
        Config.load(path, on=ON)
    first = caught.value
    assert (first.file, first.line, first.column, first.field) == (str(path), 3, 23, "operating_threshold")
    assert str(caught.value) == f"{path}:3:23: operating_threshold 520 is above system_capacity 500"
    path = write(tmp_path, csv=CSV.replace("200", "-3"))
    with pytest.raises(ConfigError) as caught:
        Config.load(path, on=ON)
    # "Northern Energy,large-supplier," are 31 characters, two identifiers with a space 47, and a comma
    assert (caught.value.line, caught.value.column, caught.value.field) == (2, 80, "allocation")
    assert str(caught.value) == f"{tmp_path / 'allocations.csv'}:2:80: allocation -3 must be 0 or more"


def test_a_configuration_that_is_refused_leaves_the_one_in_force(tmp_path: Path) -> None:
    """Lesson 12: the last good configuration stays, and its version shows it."""
    path = write(tmp_path)
    with Mechanism(Config.load(path, on=ON), start=0) as mechanism:
        before = mechanism.snapshot(0).version
        write(tmp_path, toml=TOML + "[capacity]\nsystem_capacity = 1000\n", csv=CSV.replace("200", "100"))
        with pytest.raises(ConfigError, match=r"section \[capacity\] is set twice, first in line 1"):
            mechanism.apply(Config.load(path, on=ON))
        assert mechanism.snapshot(0).version == before
        assert mechanism.config.allocations["Northern Energy"] == 200
        write(tmp_path, csv=CSV.replace("200", "100"))
        mechanism.apply(Config.load(path, on=ON), now=0)
        assert mechanism.snapshot(0).version != before


# --- tmm.toml

#: Text of tmm.toml, what is told.
WRONG_TOML: list[tuple[str | bytes, list[str]]] = [
    ("", [
        "tmm.toml:1:1: system_capacity is missing in [capacity]: units per second",
        "tmm.toml:1:1: operating_threshold is missing in [capacity]: units per second",
    ]),
    ("# nothing\n\n[capacity]\nsystem_capacity = 5", [
        "tmm.toml:3:1: operating_threshold is missing in [capacity]: units per second",
    ]),
    ("capacity = 5", ["tmm.toml:1:1: capacity 5 must be a section: [capacity]"]),
    ("[[capacity]]\nsystem_capacity = 5", [
        "tmm.toml:1:1: capacity [{'system_capacity': 5}] must be a section: [capacity]",
    ]),
    ("hold_s = 3\n" + HEAD, ["tmm.toml:1:1: key 'hold_s' stands outside a section, expected it in [mechanism]"]),
    ("colour = 3\n" + HEAD, ["tmm.toml:1:1: unknown key 'colour' outside a section"]),
    (HEAD + "[kapacity]\nx = 1", ["tmm.toml:4:1: unknown section [kapacity] (did you mean 'capacity'?)"]),
    (HEAD + "[zzz]", ["tmm.toml:4:1: unknown section [zzz]"]),
    (HEAD + "tick_s = 1", ["tmm.toml:4:1: key 'tick_s' is not known in [capacity], expected it in [mechanism]"]),
    (HEAD + "release_treshold = 1", [
        "tmm.toml:4:1: unknown key 'release_treshold' in [capacity] (did you mean 'release_threshold'?)",
    ]),
    (HEAD + "\n" + HEAD, ["tmm.toml:5:1: section [capacity] is set twice, first in line 1"]),
    (HEAD + "system_capacity = 7", ["tmm.toml:4:1: key 'system_capacity' is set twice, first in line 2"]),
    (HEAD + "release_threshold = 400", [
        "tmm.toml:4:21: release_threshold 400 must be below operating_threshold 400",
    ]),
    (HEAD + "release_threshold = nan", [
        "tmm.toml:4:21: release_threshold nan must be a finite number above 0",
    ]),
    (HEAD.replace("500", "0"), ["tmm.toml:2:19: system_capacity 0 must be above 0"]),
    (HEAD.replace("400", "-1"), ["tmm.toml:3:23: operating_threshold -1 must be above 0"]),
    (HEAD.replace("500", "'500'"), ["tmm.toml:2:19: system_capacity '500' must be a number above 0"]),
    (HEAD.replace("500", "true"), ["tmm.toml:2:19: system_capacity True must be a number above 0"]),
    (HEAD.replace("500", "inf"), ["tmm.toml:2:19: system_capacity inf must be a finite number above 0"]),
    (HEAD.replace("500", "1e10"), ["tmm.toml:2:19: system_capacity 10000000000 must be at most 1e+09"]),
    (HEAD + "[mechanism]\nburst_s = -1", ["tmm.toml:5:11: burst_s -1 must be from 0 to 3600"]),
    (HEAD + "[mechanism]\nburst_s = -inf", ["tmm.toml:5:11: burst_s -inf must be a finite number from 0 to 3600"]),
    (HEAD + "[mechanism]\nhold_s = [\n1]", ["tmm.toml:5:10: hold_s [1] must be a number from 0 to 3600"]),
    (HEAD + "[mechanism]\nactivation_s = 0", ["tmm.toml:5:16: activation_s 0 must be from 0.01 to 10"]),
    (HEAD + "[mechanism]\ntick_s = 2", ["tmm.toml:5:10: tick_s 2 must be at most 1"]),
    (HEAD + "[mechanism]\nmax_retry_after_s = 0", ["tmm.toml:5:21: max_retry_after_s 0 must be from 1 to 86400"]),
    (HEAD + "[mechanism]\nspare_weight = 0", ["tmm.toml:5:16: spare_weight 0 must be from 0.001 to 1e+06"]),
    (HEAD + "[mechanism]\nmode = 'enforced'", [
        "tmm.toml:5:8: mode 'enforced' must be enforce or observe (did you mean 'enforce'?)",
    ]),
    (HEAD + "[mechanism]\nsharing = 1", ["tmm.toml:5:11: sharing 1 must be fair, first-come or none"]),
    (HEAD + "[unknown_users]\nallocation = -0.5", ["tmm.toml:5:14: allocation -0.5 must be 0 or more"]),
    (HEAD + "[unknown_users]\nallocation = 401", [
        "tmm.toml:5:14: allocations add up to 401 units per second (unknown Users: 401), above operating_threshold 400",
    ]),
    (HEAD + "[costs]\n'4.8.1' = 0", ["tmm.toml:5:11: cost 0 must be from 1 to 1,000, units"]),
    (HEAD + "[costs]\n'4.8.1' = 2.5", ["tmm.toml:5:11: cost 2.5 must be a whole number from 1 to 1,000, units"]),
    (HEAD + "[costs]\n'4.8' = 2", [
        "tmm.toml:5:1: '4.8' is a Service Reference: name its variants (4.8.1, 4.8.2, 4.8.3)",
    ]),
    (HEAD + "[costs]\n'99.9' = 2", ["tmm.toml:5:1: '99.9' is not an SRV or a Service Reference of the catalogue"]),
    (HEAD + "[costs]\n4.8.1 = 4\n7.4 = 2", [
        'tmm.toml:5:1: costs: write the SRV in quotation marks: "4.8.1" = 4',
        'tmm.toml:6:1: costs: write the SRV in quotation marks: "7.4" = 2',
    ]),
    (HEAD + "[unknown_users]\nallocation = 1e-5\n[costs]\n'4.8.1' = 1000", [
        "tmm.toml:5:14: allocation 1e-05 needs 1157 days for a cost of 1000, at most 100 are allowed",
    ]),
    (HEAD + "[state]\nmax_users = 1.5", ["tmm.toml:5:13: max_users 1.5 must be a whole number from 0 to 1,000,000"]),
    (HEAD + "[state]\nshared = ''", ["tmm.toml:5:10: shared '' must be a text that is not empty"]),
    (HEAD + "[cluster]\nurl = 5", ["tmm.toml:5:7: url 5 must be a text that is not empty"]),
    (HEAD + '[files]\nevent_log = "a\\u202eb"', [
        "tmm.toml:5:13: event_log 'a\\u202eb' has an invisible character in it",
    ]),
    (HEAD + "[files]\nallocations = ['a.csv']", [
        "tmm.toml:5:15: allocations ['a.csv'] must be a text that is not empty",
    ]),
    (HEAD + "[files]\nallocations = 'none.csv'\npriority_list = 'none.toml'", [
        "none.csv: cannot be read: No such file or directory",
        "none.toml: cannot be read: No such file or directory",
    ]),
    (HEAD + '[files]\nallocations = "a\\u0000b"', [
        "tmm.toml:5:15: allocations 'a\\x00b' has an invisible character in it",
    ]),
    ("[capacity]\nsystem_capacity = 500\n[unknown_users]\nallocation = 600", [
        "tmm.toml:1:1: operating_threshold is missing in [capacity]: units per second",
    ]),
    (HEAD + "hold_s : 3", ["tmm.toml:4:8: is not TOML: expected '=' after a key in a key/value pair"]),
    (HEAD + 'x = "open', ["tmm.toml:4:10: is not TOML: unterminated string"]),
    (HEAD.encode() + b"# t\xe9l\n# na\xefve\n", [
        "tmm.toml:4:4: byte 0xe9 is not UTF-8",
        "tmm.toml:5:5: byte 0xef is not UTF-8",
    ]),
    (HEAD.encode("utf-16"), ["tmm.toml:1:1: encoded in UTF-16, expected UTF-8"]),
    (HEAD.encode() + b"x = '\0'", ["tmm.toml:4:6: a NUL byte, expected text"]),
    (b"\xff" * 3000, ["tmm.toml:1:1: byte 0xff is not UTF-8"]),
    (b"\xff\n" * 3000, [f"tmm.toml:{line}:1: byte 0xff is not UTF-8" for line in range(1, 1001)]
     + ["tmm.toml:1001:1: 1000 mistakes so far: not read any further"]),
    ("#" * (LARGEST_FILE + 1), ["tmm.toml: more than 1 MiB, expected a TOML file"]),
    (HEAD + "x = " + "[" * 100_000, ["tmm.toml:4:22: nested more than 16 deep, expected sections, keys and values"]),
    (HEAD + "a." * 100_000 + "b = 1", ["tmm.toml:4:34: nested more than 16 deep, expected sections, keys and values"]),
    (HEAD + "x = " + "9" * 10_000, ["tmm.toml:4:5: a number of thousands of digits, expected a number"]),
    (HEAD + "release_threshold = 0x" + "f" * 10_000, [
        "tmm.toml:4:21: release_threshold an integer of thousands of digits must be a finite number above 0",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("toml", "told"), WRONG_TOML, ids=[str(number) for number in range(len(WRONG_TOML))])
def test_what_is_wrong_in_tmm_toml_is_told(toml: str | bytes, told: list[str], tmp_path: Path) -> None:
    found = mistakes(write(tmp_path, toml=toml, csv=None, priority=None))
    # tomllib's own words differ a little between versions of Python.
    if told[0].find("is not TOML") > 0:
        assert [each.partition(" is not TOML")[0] for each in found] == [told[0].partition(" is not TOML")[0]]
    else:
        assert found == told


def test_mistakes_stand_in_the_order_of_the_lines(tmp_path: Path) -> None:
    """Comments, blank lines, strings over lines and dotted keys do not move them."""
    toml = '''\
[capacity]  # hold_s = 1
system_capacity = 500   # operating_threshold = 5

"operating_threshold" = 400
note = """
[mechanism]
hold_s = -1
"""

[ mechanism ]
'hold_s' = -1
tick_s = [
  1,  # ]
  "]",
]
[files]
[costs]
"7.4" = { a = 1,
  b = 2 }
"7.5" = 0
'''.replace(",\n  b = 2", ", b = 2\n".rstrip("\n"))
    assert mistakes(write(tmp_path, toml=toml)) == [
        "tmm.toml:5:1: unknown key 'note' in [capacity]",
        "tmm.toml:11:12: hold_s -1 must be from 0 to 3600",
        "tmm.toml:12:10: tick_s [1, ']'] must be a number from 0.001 to 1",
        'tmm.toml:18:1: costs: write the SRV in quotation marks: "7.4..." = ...',
        "tmm.toml:19:9: cost 0 must be from 1 to 1,000, units",
    ]


def test_sections_may_be_written_as_dotted_keys(tmp_path: Path) -> None:
    toml = "capacity.system_capacity = 500\ncapacity.operating_threshold = 600\nmechanism = { hold_s = -1 }\n"
    assert mistakes(write(tmp_path, toml=toml)) == [
        "tmm.toml:2:32: operating_threshold 600 is above system_capacity 500",
        "tmm.toml:3:24: hold_s -1 must be from 0 to 3600",
    ]


def test_after_a_fault_of_syntax_nothing_is_made_up(tmp_path: Path) -> None:
    """What stands twice before it is told, what seems to behind it is not."""
    toml = HEAD + "system_capacity = 1\nx = 'open\n[capacity]\nsystem_capacity = 2\n"
    found = mistakes(write(tmp_path, toml=toml))
    assert found[0] == "tmm.toml:4:1: key 'system_capacity' is set twice, first in line 2"
    assert found[1].startswith("tmm.toml:5:")
    assert len(found) == 2
    # A string over lines that is never closed hides all that follows.
    found = mistakes(write(tmp_path, toml='[files]\nx = """a" = 1\n[s]\n[s]\n'))
    assert len(found) == 1
    assert found[0].startswith("tmm.toml:2:")


def test_what_stands_in_a_repeated_section_has_no_place(tmp_path: Path) -> None:
    toml = HEAD + "[costs]\n[capacity]\nx.y = 1\n[capacity.x]\ny = 2\n"
    assert mistakes(write(tmp_path, toml=toml)) == [
        "tmm.toml:5:1: section [capacity] is set twice, first in line 1",
        "tmm.toml:7:1: unknown key 'x' in [capacity]",
    ]


# --- The priority list

#: What stands in the file, what is told.
WRONG_LISTS: list[tuple[str, list[str]]] = [
    ("", ['1:1: srvs is missing: the SRVs on the list, for example srvs = ["2.2", "7.4"]']),
    ('srvs = "7.4"', ["1:8: srvs '7.4' must be a list of SRVs, for example ['2.2', '7.4']"]),
    ("srvs = [7.4]", ["1:9: 7.4 must be text, for example '4.1.1'"]),
    ('srvs = [\n"7.4",\n# again\n"7.4",\n]', ["4:1: '7.4' is listed twice"]),
    ('srvs = ["7.4"]\nsrv = 1', ["2:1: unknown key 'srv' in a priority list (did you mean 'srvs'?)"]),
    ('srvs = ["7.4"]\nversion = 3', ["2:11: version 3 must be a text on one line"]),
    ('srvs = ["7.4"]\napproved_by = """\na\nb"""', ["2:15: approved_by 'a\\nb' must be a text on one line"]),
    ('srvs = ["7.4"]\neffective_from = "2026-11-01"', [
        "2:18: effective_from '2026-11-01' must be a date, for example 2026-12-01 (without quotation marks)",
    ]),
    ('srvs = ["7.4"]\neffective_from = 2026-11-01T00:00:00', [
        "2:18: effective_from datetime.datetime(2026, 11, 1, 0, 0) must be a date, for example 2026-12-01",
    ]),
    ('srvs = ["7.4"]\nsrvs = ["7.5"]', ["2:1: key 'srvs' is set twice, first in line 1"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), WRONG_LISTS)
def test_what_is_wrong_in_a_priority_list_is_told(text: str, told: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, priority=text)
    assert mistakes(path) == [f"priority-list.toml:{each}" for each in told]
    file = tmp_path / "priority-list.toml"
    with pytest.raises(ConfigError) as caught:
        PriorityList.load(file)
    assert str(caught.value) == "\n".join(f"{file}:{each}" for each in told)


def test_a_priority_list_may_name_service_references(tmp_path: Path) -> None:
    write(tmp_path, priority='srvs = ["4.8", "7.4"]')
    assert PriorityList.load(tmp_path / "priority-list.toml").expanded == {"4.8.1", "4.8.2", "4.8.3", "7.4"}


# --- The example


@pytest.mark.parametrize(
    ("on", "begins", "total"),
    [(date(2026, 11, 25), date(2026, 11, 1), 15_045.5), (date(2026, 12, 1), date(2026, 12, 1), 15_111.25)],
)
def test_the_example_loads(on: date, begins: date, total: float) -> None:
    config = Config.load(EXAMPLE / "tmm.toml", on=on)
    assert config.effective_from == begins
    assert sum(config.allocations.values()) == total
    assert set(config.categories.values()) == {
        "large-supplier", "small-supplier", "electricity-network", "gas-network", "other",
    }  # fmt: skip
    assert config.system_capacity == 25_000


def test_the_example_list_follows_the_criteria_discussed_and_says_it_is_illustrative() -> None:
    """Prepayment and Read Supply Status are on it; install, commission and decommission (chapter 8) are not."""
    priority = PriorityList.load(EXAMPLE / "priority-list.toml")
    assert sorted(priority.expanded) == [
        "1.5", "1.6", "2.1", "2.2", "2.3", "2.5", "4.13", "4.14", "4.18", "4.3", "4.4.4", "4.4.5", "7.1", "7.2", "7.3",
        "7.4",
    ]  # fmt: skip
    assert "illustrative" in priority.version
    assert "illustrative" in priority.approved_by
    assert not [code for code in priority.expanded if code.startswith("8.")]


def test_the_example_decides(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "config")
    config = Config.load(tmp_path / "config" / "tmm.toml", on=ON)
    with Mechanism(config, start=0) as mechanism:
        user = mechanism.user("90-b3-d5-1f-30-01-00-01")
        assert mechanism.admit_at(user, mechanism.srv("7.4"), 0).name == "PRIORITY"
        assert mechanism.admit_at(user, mechanism.srv("4.1.1"), 0).name == "WITHIN_ALLOCATION"


def test_what_was_meant_is_asked_of_the_first_hundred_mistakes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look for a word that is spelt alike takes a millisecond: 20,000 wrong keys took 20 seconds."""
    asked = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda word, known, **_: asked.append(word) or [])
    for section, wrong in (("costs", "x"), ("mechanism", "hold")):
        asked.clear()
        keys = "".join(f"{wrong}{number} = 1\n" for number in range(300))
        with pytest.raises(ConfigError) as told:
            Config.load(write(tmp_path, toml=f"{TOML}[{section}]\n{keys}"), on=ON)
        assert len(told.value.mistakes) == 300
        assert asked == [f"{wrong}{number}" for number in range(100)]
