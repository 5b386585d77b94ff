"""The middleware's share of the cheapest request: throughput with and without it, in one run.

    make bench-gateway            needs wrk on the PATH (Debian: apt-get install wrk)

Each server runs with one worker, which serves three sides: the application alone, behind a middleware that only passes
on, and behind ours. They are asked in turn, round by round, in changing order, and each round gives ratios; told are
their medians and quartiles over all rounds and processes. The servers are started anew several times: where a process
has its memory changes its speed by more than what is measured here. A server with all its threads has one core, wrk the
others (on Linux): else they push each other about, and of granian, which has several threads, the rates of one round
differ by a fifth.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from gateway.messages import USER, compose  # noqa: E402 - the tests' messages

#: Identified by: application, most it may cost in per cent of throughput.
PAIRS = {
    "HTTP header": ("by_header", 3.0),
    "DUIS body of 5 kB": ("by_message", 10.0),
}
SIDES = ("without", "pass-only", "with")
SERVERS = {
    "uvicorn": "uvicorn --port {port} --interface asgi3 --log-level error --no-access-log --lifespan off app:{app}",
    "granian": "granian --port {port} --interface asginl --no-ws --log-level error app:{app}",
}


class Measured(NamedTuple):
    """One side of one round."""

    rate: float  # requests per second
    cpu_us: float  # processor time of the server for each


Round = dict[str, Measured]


def script(pair: str, folder: Path) -> Path:
    """Write wrk's script: a POST with the headers, or with the message."""
    path = folder / f"{pair.split()[0]}.lua"
    if pair == "HTTP header":
        lines = [f'wrk.headers["TMM-User"] = "{USER}"', 'wrk.headers["TMM-SRV"] = "4.1.1"']
    else:
        body = compose(size=5_000).decode().replace("\n", "\\n").replace('"', '\\"')
        lines = [f'wrk.body = "{body}"', 'wrk.headers["Content-Type"] = "application/xml"']
    path.write_text("\n".join(['wrk.method = "POST"', *lines]) + "\n")
    return path


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Have what is started here run on these cores only, where the system can."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores() -> tuple[set[int], set[int]]:
    """Return the core of a server and those of all else; both empty where there is only one."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    first, *others = sorted(os.sched_getaffinity(0))
    return ({first}, set(others)) if others else (set(), set())


@contextlib.contextmanager
def served(server: str, app: str) -> Iterator[tuple[int, int]]:
    """Run a server; give its port and its process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = SERVERS[server].format(port=port, app=app).split()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    with on(cores()[0]):
        process = subprocess.Popen([sys.executable, "-m", *command], env=environ, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if connection.recv(1):
                    break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def cpu_s(group: int) -> float:
    """Return the processor time of a process group so far, of all its threads, seconds."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                for task in stat.parent.glob("task/*/schedstat"):
                    total += int(task.read_text().split()[0])
    return total / 1e9


def ask(port: int, group: int, side: str, lua: Path, seconds: int) -> Measured:
    """Ask one side; every request must have been answered by 200."""
    url = f"http://127.0.0.1:{port}/{side}"
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(lua), url]
    before = cpu_s(group)
    with on(cores()[1]):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_s(group) - before
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"not every request was answered by 200:\n{said}")
    rate, requests = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    assert rate is not None and requests is not None, said
    return Measured(float(rate[1]), 1e6 * used / int(requests[1]))


def measured(server: str, app: str, lua: Path, args: argparse.Namespace) -> list[Round]:
    """Return all rounds, of several processes."""
    rounds: list[Round] = []
    orders = itertools.cycle(itertools.permutations(SIDES))
    for _ in range(args.processes):
        with served(server, app) as (port, group):
            for side in SIDES:
                ask(port, group, side, lua, 1)
            for _ in range(args.rounds):
                order = next(orders)
                asked = {side: ask(port, group, side, lua, args.seconds) for side in order}
                rounds.append(asked)
    return rounds


def lost(rounds: list[Round], side: str, beside: str) -> list[float]:
    """Return the per cent of throughput that `side` loses beside another, by round."""
    return [100 * (1 - each[side].rate / each[beside].rate) for each in rounds]


def work(rounds: list[Round], side: str, beside: str) -> list[float]:
    """Return the same by processor time."""
    return [100 * (1 - each[beside].cpu_us / each[side].cpu_us) for each in rounds]


def row(server: str, pair: str, most: float, rounds: list[Round]) -> tuple[str, bool]:
    """Return the line of the table, and whether the target is met."""

    def median(value: Callable[[Measured], float], side: str) -> float:
        return statistics.median(value(each[side]) for each in rounds)

    met = statistics.median(lost(rounds, "with", "without")) <= most
    cells = [
        server,
        pair,
        f"{median(lambda each: each.rate, 'without'):,.0f}",
        _told(lost(rounds, "pass-only", "without")),
        _told(lost(rounds, "with", "without")),
        _told(lost(rounds, "with", "pass-only")),
        *(f"{median(lambda each: each.cpu_us, side):.1f}" for side in SIDES),
        _told(work(rounds, "with", "without")),
        f"{most:.0f}",
        "yes" if met else "no",
    ]
    return f"| {' | '.join(cells)} |", met


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=3, help="how often each server is started")
    parser.add_argument("--rounds", type=int, default=6, help="of each process")
    parser.add_argument("--seconds", type=int, default=1, help="of each side and round")
    parser.add_argument("--server", choices=SERVERS, action="append")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        print("bench-gateway: wrk is not on the PATH (Debian: apt-get install wrk)", file=sys.stderr)
        return 1
    servers = [server for server in args.server or SERVERS if find_spec(server) is not None]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}; CPython {platform.python_version()}; {os.cpu_count()} cores, {_processor()};"
    )
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{', '.join(f'{server} {version(server)}' for server in servers)}; load before the run {loads}")
    print(
        f"{args.processes} processes of {args.rounds} rounds of {args.seconds} s a side, wrk -t1 -c16, one worker; "
        "medians (quartiles)\n"
    )
    print(
        "| server | identified by | without, 1/s | lost pass-only, % | lost with, % | with beside pass-only, % "
        "| CPU without, us | CPU pass-only, us | CPU with, us | lost with by CPU, % | target, % | met |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    all_met = True
    with tempfile.TemporaryDirectory() as folder:
        for server in servers:
            for pair, (app, most) in PAIRS.items():
                line, met = row(server, pair, most, measured(server, app, script(pair, Path(folder)), args))
                all_met = all_met and met
                print(line, flush=True)
    return 0 if all_met else 1


def _told(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
