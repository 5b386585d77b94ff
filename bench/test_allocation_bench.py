"""The allocation formula for 10,000 Users: it is to take less than a second, and to grow no worse than sorting."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from tmm_core import allocate
from tmm_core.operations.cli import main
from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import COLUMNS, Portfolio, UserPortfolio
from tmm_core.policy.validation import CATEGORIES

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "allocation" / "parameters.toml"


def inputs(users: int) -> tuple[Portfolio, Parameters]:
    """Return a portfolio of so many Users, a third of whom the minimum decides for."""
    chance = random.Random(1)
    rows = tuple(
        UserPortfolio(
            f"User {number}",
            chance.choice(CATEGORIES),
            (),
            *(chance.randint(0, 10**6) if number % 3 else 0 for _ in range(5)),
            forecast=chance.choice((None, chance.randint(0, 10**8))) if number % 3 else 1,
            actual=chance.randint(0, 10**8) if number % 3 else None,
        )
        for number in range(users)
    )
    parameters = Parameters.load(EXAMPLE)
    least = Fraction(1, 10)
    return Portfolio("2026-12", rows), replace(parameters, guaranteed_minimum=least, minimum=least)


def processor_time(users: int) -> float:
    """Return the least of three processor times of one allocation, seconds."""
    portfolio, parameters = inputs(users)
    times = []
    for _ in range(3):
        began = process_time()
        allocate(portfolio, parameters)
        times.append(process_time() - began)
    return min(times)


def test_allocate_10000_users_quick(benchmark: Any) -> None:
    """Included: weights, water-filling, rounding. Not included: reading the file."""
    portfolio, parameters = inputs(10_000)
    allocations = benchmark(allocate, portfolio, parameters)
    assert allocations.total == allocations.distributable
    # Ten times the Users, 13 times the comparisons of a sort: 40 would be growth by the square setting in.
    growth = processor_time(10_000) / processor_time(1_000)
    benchmark.extra_info["growth_10x"] = growth
    assert growth < 40


def text_of(portfolio: Portfolio) -> str:
    """Return the file of a portfolio."""
    lines = [",".join(COLUMNS)]
    for row in portfolio.users:
        counts = (getattr(row, name) for name in COLUMNS[3:])
        shown = ("" if each is None else str(each) for each in counts)
        lines.append(",".join((row.user, row.category, " ".join(row.user_ids), *shown)))
    return "\n".join([*lines, ""])


def test_read_portfolio_of_10000_users_quick(benchmark: Any) -> None:
    """Included: decoding, every check of every cell."""
    portfolio, _ = inputs(10_000)
    assert benchmark(Portfolio.read, text_of(portfolio).encode(), "2026-12") == portfolio


def test_allocate_command_of_10000_users_quick(
    judge: Callable[..., None], benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Included: reading portfolio and last month's file, the formula, the table of all Users, writing the new file.

    Not included: the start of the interpreter and the imports, which `tmm --version` takes as well.
    """
    portfolio, _ = inputs(10_000)
    rows = tuple(
        replace(row, user_ids=(f"90-B3-D5-1F-30-{n >> 16:02X}-{n >> 8 & 255:02X}-{n & 255:02X}",))
        for n, row in enumerate(portfolio.users)
    )
    file, parameters = tmp_path / "portfolio.csv", tmp_path / "parameters.toml"
    file.write_text(text_of(Portfolio("2026-12", rows)), encoding="utf-8")
    least = re.sub(r"(guaranteed_minimum|everyone_else)( *)= \d+", r"\1\2= 0.1", EXAMPLE.read_text("utf-8"))
    parameters.write_text(least, encoding="utf-8")

    def command(day: str) -> None:
        output = str(tmp_path / "allocations" / f"{day}.csv")
        assert main(["allocate", str(file), "-p", str(parameters), "-o", output, "--replace"]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 10_000

    command("2026-11-01")
    times = []
    for _ in range(3):
        (tmp_path / "allocations" / "2026-12-01.csv").unlink(missing_ok=True)
        began = process_time()
        command("2026-12-01")
        times.append(process_time() - began)
    benchmark.pedantic(lambda: None, rounds=1)
    judge(
        "allocate_10000", "`tmm allocate` of 10,000 Users", min(times), f"{min(times):.2f} s",
        "read, compared with the month before, shown and written; processor time without the imports",
    )  # fmt: skip
