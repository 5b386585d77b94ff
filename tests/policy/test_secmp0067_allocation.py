"""SECMP0067, requirements F7 and F8, in the words of the Modification Report; and the page that explains them."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmm_core import Config, Decision, Mechanism, allocate
from tmm_core.policy.allocation import Allocations
from tmm_core.policy.parameters import NOTICE, Parameters
from tmm_core.policy.portfolio import METER_KINDS, Portfolio, UserPortfolio
from tmm_core.reload import Reloader

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "allocation"
PAGE = ROOT / "docs" / "allocation.md"


@pytest.fixture(scope="module")
def parameters() -> Parameters:
    return Parameters.load(EXAMPLE / "parameters.toml")


@pytest.fixture(scope="module")
def december() -> Portfolio:
    return Portfolio.load(EXAMPLE / "portfolio.csv", "2026-12")


def with_more(portfolio: Portfolio, user: str, **more: int) -> Portfolio:
    """Return a portfolio in which a User has more of something."""
    users = tuple(
        replace(row, **{name: (getattr(row, name) or 0) + count for name, count in more.items()})
        if row.user == user
        else row
        for row in portfolio.users
    )
    return Portfolio(portfolio.month, users)


@pytest.mark.parametrize("kind", METER_KINDS)
def test_f7_an_allocation_is_measured_against_the_portfolio_of_smart_meters_and_devices(
    december: Portfolio, parameters: Parameters, kind: str
) -> None:
    before = allocate(december, parameters).of("Brightwell")
    after = allocate(with_more(december, "Brightwell", **{kind: 50_000}), parameters).of("Brightwell")
    assert after.quanta > before.quanta


def test_f7_service_requests_affecting_prepayment_count(december: Portfolio, parameters: Parameters) -> None:
    credit = allocate(with_more(december, "Brightwell", electricity_credit=50_000), parameters)
    prepayment = allocate(with_more(december, "Brightwell", electricity_prepayment=50_000), parameters)
    assert prepayment.of("Brightwell").quanta > credit.of("Brightwell").quanta


@pytest.mark.parametrize("source", ["forecast", "actual"])
def test_f7_the_service_requests_a_user_is_expected_to_process_count(
    december: Portfolio, parameters: Parameters, source: str
) -> None:
    before = allocate(december, parameters).of("Northern Energy")
    after = allocate(with_more(december, "Northern Energy", **{source: 100_000_000}), parameters)
    assert after.of("Northern Energy").quanta > before.quanta


def test_f7_other_sec_parties_are_guaranteed_some_capacity(
    december: Portfolio, parameters: Parameters
) -> None:
    nothing = UserPortfolio("Newcomer", "other")
    crowd = replace(december.users[0], electricity_credit=900_000_000)
    allocations = allocate(Portfolio("2026-12", (crowd, *december.users[1:], nothing)), parameters)
    for entry in allocations.users:
        if entry.category == "other":
            assert entry.allocation >= parameters.guaranteed_minimum == 20


def test_f8_the_factors_are_updated_monthly_and_all_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "allocations"
    folder.mkdir()
    for month in ("2026-11-01", "2026-12-01"):
        (folder / f"{month}.csv").write_bytes((EXAMPLE / "allocations" / f"{month}.csv").read_bytes())
    (tmp_path / "tmm.toml").write_text(
        "[capacity]\nsystem_capacity = 25000\noperating_threshold = 20000\n[files]\nallocations = 'allocations'\n"
        "[unknown_users]\nallocation = 50\n",
        encoding="utf-8",
    )
    at = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    mechanism = Mechanism(Config.load(tmp_path / "tmm.toml", on=at.date()), start=0)
    reloader = Reloader(mechanism, clock=lambda: at)
    reloader.look()
    november = mechanism.config
    elm = mechanism.user("Elm Street Energy")
    srv = mechanism.srv("4.1.1")
    assert mechanism.admit_at(elm, srv, 0) is Decision.WITHIN_ALLOCATION
    at += timedelta(seconds=1)
    assert [each.kind for each in reloader.look()] == ["applied"]
    december = mechanism.config
    changed = {user for user, rate in december.allocations.items() if november.allocations.get(user) != rate}
    assert len(changed) > 20  # all Users at one moment, not one after the other
    assert december.allocations["Elm Street Energy"] == 24.362
    assert mechanism.user("Elm Street Energy") == elm
    assert mechanism.snapshot().counts[elm].sum() == 1  # what was counted stays
    assert mechanism.user("Wharfside Power") != elm
    assert mechanism.user("90-B3-D5-1F-30-1C-00-00") == 0  # gone: unknown from now on


# --- The page


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    text = text[text.index("## Worked example") :]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def worked() -> Allocations:
    parameters = Parameters.read(blocks("toml")[0].encode(), file="docs/allocation.md")
    portfolio = Portfolio.read(blocks("csv")[0].encode(), "2026-12", file="docs/allocation.md")
    return allocate(portfolio, parameters)


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table of the page whose header has this word."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|") and heading in line)
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip().strip("*") for cell in line.strip("|").split("|")])
    return rows


def test_the_worked_example_of_the_page_is_what_the_formula_gives(worked: Allocations) -> None:
    rows = table("remainder")
    assert len(rows) == 4
    for user, exactly, floor, remainder, allocation in rows:
        terms = worked.terms(user)
        assert allocation == f"{float(terms.allocation):.3f}"
        if terms.at_minimum:
            assert exactly == "guaranteed minimum"
            continue
        assert exactly.endswith(f"= {float(terms.exact):.6f}")
        assert floor == f"{int(terms.exact * 1000) / 1000:.3f}"
        assert remainder == f"{float(terms.exact * 1000 % 1):.3f}"
    assert worked.total == worked.distributable == 85


def test_the_service_requests_a_day_of_the_page_are_those_of_the_formula(worked: Allocations) -> None:
    for user, portfolio, forecast, actual, blended in table("blended"):
        terms = worked.terms(user)
        assert portfolio.split("= ")[-1] == f"{int(terms.portfolio_per_day):,}"
        assert forecast == ("none" if terms.forecast_per_day is None else f"{int(terms.forecast_per_day):,}")
        assert actual == ("none" if terms.actual_per_day is None else f"{int(terms.actual_per_day):,}")
        assert blended.split("= ")[-1] == f"{int(terms.expected_per_day):,}"
        sum_shown, _, _ = blended.rpartition(" = ")
        if sum_shown:
            digits = sum_shown.replace(",", "")
            assert re.fullmatch(r"[0-9.+*/() ]+", digits)
            assert eval(digits) == pytest.approx(float(terms.expected_per_day))


def test_the_page_names_the_columns_of_the_portfolio() -> None:
    header = next(csv.reader(io.StringIO(blocks("csv")[0])))
    text = PAGE.read_text(encoding="utf-8").replace("`\n`", "")
    assert f"`{','.join(header)}`" in text


@pytest.mark.parametrize(
    "path",
    [PAGE, EXAMPLE / "parameters.toml", ROOT / "src" / "tmm_core" / "policy" / "parameters.py"],
    ids=lambda path: path.name,
)
def test_every_document_says_that_the_formula_is_our_own(path: Path) -> None:
    assert NOTICE in path.read_text(encoding="utf-8")
