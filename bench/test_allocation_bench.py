"""Allocations for 10,000 Users: less than a second, also as a command; growth no worse than that of sorting."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from time import process_time
from typing import Any

from tmm_core import allocate
from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import Portfolio, UserPortfolio
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


def test_allocate_10000_users_quick(judge: Callable[..., None], benchmark: Any) -> None:
    """Included: weights, water-filling, rounding. Not included: reading the file."""
    portfolio, parameters = inputs(10_000)
    allocations = benchmark(allocate, portfolio, parameters)
    assert allocations.total == allocations.distributable
    # Ten times the Users, 13 times the comparisons of a sort: 40 would be growth by the square setting in.
    took = processor_time(10_000)
    growth = took / processor_time(1_000)
    benchmark.extra_info["growth_10x"] = growth
    assert growth < 40
    judge(
        "allocate_10000", "the formula for 10,000 Users", took, f"{took:.3f} s",
        f"{growth:.0f} times the time of 1,000; processor time",
    )  # fmt: skip


def test_read_portfolio_of_10000_users_quick(benchmark: Any) -> None:
    """Included: decoding, every check of every cell."""
    portfolio, _ = inputs(10_000)
    assert benchmark(Portfolio.read, written(portfolio), "2026-12") == portfolio


def written(portfolio: Portfolio) -> bytes:
    """Return a portfolio file."""
    text = "user,category,user_ids,electricity_credit,electricity_prepayment,gas_credit,gas_prepayment,other_devices,"
    text += "forecast,actual\n"
    for row in portfolio.users:
        counts = (row.electricity_credit, row.electricity_prepayment, row.gas_credit, row.gas_prepayment)
        requests = (row.other_devices, row.forecast, row.actual)
        shown = ",".join("" if each is None else str(each) for each in (*counts, *requests))
        text += f"{row.user},{row.category},{' '.join(row.user_ids)},{shown}\n"
    return text.encode()


def test_the_allocate_command_of_10000_users(
    judge: Callable[..., None], benchmark: Any, tmp_path: Path
) -> None:
    """Included: the start of Python and NumPy, both files, the month before, the table of all Users, the new file."""
    portfolio, _ = inputs(10_000)
    rows = tuple(
        replace(row, user_ids=(f"90-B3-D5-1F-{number >> 8:02X}-{number & 255:02X}-00-00",))
        for number, row in enumerate(portfolio.users)
    )
    (tmp_path / "portfolio.csv").write_bytes(written(Portfolio("2026-12", rows)))
    parameters = re.sub(
        r"(guaranteed_minimum|everyone_else)( *=) *[0-9.]+", r"\1\2 0.1", EXAMPLE.read_text(encoding="utf-8")
    )
    (tmp_path / "parameters.toml").write_text(parameters, encoding="utf-8")
    command = [sys.executable, "-m", "tmm_core", "allocate", "portfolio.csv", "-p", "parameters.toml"]
    times = []

    def allocate_month(month: str) -> None:
        before = os.times()
        subprocess.run(
            [*command, "--accept-changes", "-o", f"{month}-01.csv"],
            cwd=tmp_path,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after = os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        times.append(used)

    months = iter([f"2026-{number:02d}" for number in range(1, 9)])
    benchmark.pedantic(lambda: allocate_month(next(months)), rounds=7, warmup_rounds=1)
    assert (tmp_path / "2026-07-01.csv").read_text().count("\n") == 10_001
    judge(
        "allocate_command", "`tmm allocate` for 10,000 Users", min(times), f"{min(times):.2f} s",
        "processor time of the whole command: Python, files, table of all Users",
    )  # fmt: skip
