"""The middleware's share of the cheapest request: throughput with and without it, in one run.

    make bench-gateway            needs wrk on the PATH (Debian: apt-get install wrk)

Each server runs with one worker. Pairs of an application without and with the middleware are asked in turn, round
by round, in changing order, and each pair gives a ratio; the median of the ratios and their quartiles are told.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from gateway.messages import USER, compose  # noqa: E402 - the tests' messages

#: Pair: application without, application with, most it may cost in per cent of throughput.
PAIRS = {
    "HTTP header": ("bare", "by_header", 3.0),
    "DUIS body of 5 kB": ("reading", "by_message", 10.0),
}
SERVERS = {
    "uvicorn": "uvicorn --port {port} --log-level error --no-access-log --lifespan off app:{app}",
    "granian": "granian --port {port} --interface asginl --no-ws --log-level error app:{app}",
}


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
def served(server: str, app: str) -> Iterator[tuple[int, int]]:
    """Run a server; give its port and its process group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = SERVERS[server].format(port=port, app=app).split()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
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


def ask(port: int, group: int, lua: Path, seconds: int) -> tuple[float, float]:
    """Return requests per second, and the server's processor time for each in microseconds.

    Every request must have been answered by 200.
    """
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(lua), f"http://127.0.0.1:{port}/"]
    before = cpu_s(group)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_s(group) - before
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"not every request was answered by 200:\n{said}")
    rate, requests = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    assert rate is not None and requests is not None, said
    return float(rate[1]), 1e6 * used / int(requests[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
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
    print(f"{args.rounds} rounds of {args.seconds} s each, wrk -t1 -c16, one worker; medians (quartiles)\n")
    print(
        "| server | identified by | without, 1/s | with, 1/s | throughput lost, % | CPU without, us | CPU with, us "
        "| same by CPU, % | target, % | met |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---|")
    met = True
    with tempfile.TemporaryDirectory() as folder:
        for server in servers:
            for pair, (without, with_, most) in PAIRS.items():
                lua = script(pair, Path(folder))
                with served(server, without) as one, served(server, with_) as other:
                    said: dict[tuple[int, int], list[tuple[float, float]]] = {one: [], other: []}
                    for each in said:
                        ask(*each, lua, 1)
                    for turn in range(args.rounds):
                        for each in (one, other) if turn % 2 else (other, one):
                            said[each].append(ask(*each, lua, args.seconds))
                rounds = list(zip(said[one], said[other], strict=True))
                costs = [100 * (1 - with_[0] / without[0]) for without, with_ in rounds]
                works = [100 * (1 - without[1] / with_[1]) for without, with_ in rounds]
                cost, work = statistics.median(costs), statistics.median(works)
                met = met and cost <= most
                rate = [statistics.median(pair[0] for pair in said[each]) for each in (one, other)]
                cpu = [statistics.median(pair[1] for pair in said[each]) for each in (one, other)]
                print(
                    f"| {server} | {pair} | {rate[0]:,.0f} | {rate[1]:,.0f} | {cost:.1f} {_quartiles(costs)} "
                    f"| {cpu[0]:.1f} | {cpu[1]:.1f} | {work:.1f} {_quartiles(works)} "
                    f"| {most:.0f} | {'yes' if cost <= most else 'no'} |",
                    flush=True,
                )
    return 0 if met else 1


def _quartiles(values: list[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"({low:.1f} to {high:.1f})"


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
