"""The middleware's share of the cheapest request: throughput with and without it, in one run.

    make bench-gateway            needs wrk on the PATH (Debian: apt-get install wrk)

Each server runs with one worker and wrk asks it without a pause. The application serves three sides by turns, each for
a few hundred requests: alone, behind a middleware that only passes on, and behind ours (see app.py). A round is all
three and back again; it gives ratios, of the time its slices took and of the processor time, and told are the medians
of all rounds. The servers are started anew several times: where a process has its memory changes its speed by as much
as what is measured here, so the lowest and highest median of a process are told too. A server with all its threads has
one core, wrk the others (on Linux): else they push each other about.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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
import urllib.request
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
SLICES = 2 * len(SIDES)  # of a round
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
def served(server: str, app: str) -> Iterator[int]:
    """Run a server; give its port."""
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
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def wrk(port: int, lua: Path, seconds: int) -> None:
    """Ask for so long; every request must have been answered by 200."""
    url = f"http://127.0.0.1:{port}/"
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(lua), url]
    with on(cores()[1]):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"not every request was answered by 200:\n{said}")


def told(port: int) -> list[Round]:
    """Return all whole rounds since this was last asked, but for the first."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/told", timeout=30) as answer:
        said = json.load(answer)
    slices, requests = said["slices"], said["requests"]
    of_ours = requests * sum(side == "with" for side, *_ in slices)
    if re.search("=[1-9]", said["counts"]) or said["decided"] < of_ours:
        raise SystemExit(
            f"not every request was decided on: {said['decided']} of {of_ours}, {said['counts']}"
        )
    rounds: list[Round] = []
    for first in range(SLICES, len(slices) - SLICES + 1, SLICES):
        measured = {}
        for side in SIDES:
            times = [each[1:] for each in slices[first : first + SLICES] if each[0] == side]
            (ns, cpu_ns), asked = map(sum, zip(*times, strict=True)), requests * len(times)
            measured[side] = Measured(1e9 * asked / ns, cpu_ns / asked / 1e3)
        rounds.append(measured)
    return rounds


def measured(server: str, app: str, lua: Path, args: argparse.Namespace) -> list[list[Round]]:
    """Return the rounds of each process."""
    processes: list[list[Round]] = []
    for _ in range(args.processes):
        with served(server, app) as port:
            wrk(port, lua, 1)
            told(port)
            wrk(port, lua, args.seconds)
            processes.append(told(port))
    return processes


def lost(rounds: list[Round], side: str, beside: str) -> list[float]:
    """Return the per cent of throughput that `side` loses beside another, by round."""
    return [100 * (1 - each[side].rate / each[beside].rate) for each in rounds]


def work(rounds: list[Round], side: str, beside: str) -> list[float]:
    """Return the same by processor time."""
    return [100 * (1 - each[beside].cpu_us / each[side].cpu_us) for each in rounds]


def row(server: str, pair: str, most: float, processes: list[list[Round]]) -> tuple[str, bool]:
    """Return the line of the table, and whether the target is met."""
    rounds = [each for process in processes for each in process]

    def median(value: Callable[[Measured], float], side: str) -> float:
        return statistics.median(value(each[side]) for each in rounds)

    def told(ratios: Callable[[list[Round], str, str], list[float]], side: str, beside: str) -> str:
        low, middle, high = statistics.quantiles(ratios(rounds, side, beside), n=4)
        each = [statistics.median(ratios(process, side, beside)) for process in processes]
        return f"{middle:.1f} ({low:.1f} to {high:.1f}; {min(each):.1f} to {max(each):.1f})"

    met = statistics.median(lost(rounds, "with", "without")) <= most
    cells = [
        server,
        pair,
        f"{median(lambda each: each.rate, 'without'):,.0f}",
        told(lost, "pass-only", "without"),
        told(lost, "with", "without"),
        *(f"{median(lambda each: each.cpu_us, side):.1f}" for side in SIDES),
        told(work, "with", "without"),
        f"{most:.0f}",
        "yes" if met else "no",
    ]
    return f"| {' | '.join(cells)} |", met


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8, help="how often each server is started")
    parser.add_argument("--seconds", type=int, default=10, help="for which wrk asks each process")
    parser.add_argument("--server", choices=SERVERS, action="append")
    parser.add_argument("--pair", choices=PAIRS, action="append")
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
        f"{args.processes} processes of {args.seconds} s, wrk -t1 -c16, one worker; medians of rounds of some 0.1 s "
        "(quartiles; lowest and highest median of a process)\n"
    )
    print(
        "| server | identified by | without, 1/s | lost pass-only, % | lost with, % "
        "| CPU without, us | CPU pass-only, us | CPU with, us | lost with by CPU, % | target, % | met |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    all_met = True
    with tempfile.TemporaryDirectory() as folder:
        for server in servers:
            for pair in args.pair or PAIRS:
                app, most = PAIRS[pair]
                line, met = row(server, pair, most, measured(server, app, script(pair, Path(folder)), args))
                all_met = all_met and met
                print(line, flush=True)
    return 0 if all_met else 1


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
