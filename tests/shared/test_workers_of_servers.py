"""The limit under real servers is the limit, not the limit times the number of workers; and no count is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway.servers import free_port, module, need, post_many, running

from shared.counted import FROZEN, LIMIT, open_mechanism

pytestmark = pytest.mark.timeout(90)

#: Server: what it needs, and its command.
SERVERS = {
    "gunicorn": "gunicorn --workers {n} --bind 127.0.0.1:{port} --no-control-socket shared.counted:wsgi",
    "gunicorn-preload": "gunicorn --preload --workers {n} --bind 127.0.0.1:{port} --no-control-socket "
    "shared.counted:wsgi",
    "gunicorn-recycled": "gunicorn --max-requests 40 --workers {n} --bind 127.0.0.1:{port} --no-control-socket "
    "shared.counted:wsgi",
    "uvicorn": "uvicorn --workers {n} --port {port} --lifespan off --log-level warning shared.counted:asgi",
    "granian": "granian --workers {n} --port {port} --interface wsgi shared.counted:wsgi",
    "granian-asgi": "granian --workers {n} --port {port} --interface asgi --no-ws shared.counted:asgi",
    "hypercorn": "hypercorn --workers {n} --bind 127.0.0.1:{port} shared.counted:asgi",
}
REQUESTS = 400


#: Started on every change with two workers; all of them with two and four in the long run.
OFTEN = ("gunicorn", "gunicorn-preload", "uvicorn", "granian", "hypercorn")


@pytest.mark.parametrize(
    ("server", "workers"),
    [
        pytest.param(server, n, marks=() if n == 2 and server in OFTEN else pytest.mark.slow)
        for server in SERVERS
        for n in (2, 4)
    ],
)
def test_the_limit_is_exact_and_every_request_is_counted(server: str, workers: int, tmp_path: Path) -> None:
    need(server.split("-")[0])
    port, log, block = free_port(), tmp_path / "log", str(tmp_path / "block")
    command = SERVERS[server].format(n=workers, port=port)
    with open_mechanism(block) as eye:
        other, srv = eye.user("Hydra Ltd"), eye.srv("4.1.1")
        while not eye.snapshot(FROZEN).active:
            eye.admit_at(other, srv, FROZEN)
        before = eye.snapshot(FROZEN).counts
        with running(module(*command.split()), port, log=log, env={"TMM_TEST_BLOCK": block}):
            replies = post_many(port, [b"x"] * REQUESTS, at_once=2 * workers)
        statuses = [reply.status for reply in replies]
        assert statuses.count(200) == LIMIT, log.read_text(errors="replace")[-2000:]
        assert statuses.count(503) == REQUESTS - LIMIT
        assert len({reply.body for reply in replies}) > 1, "more than one worker has decided"
        grown = (eye.snapshot(FROZEN).counts - before)[eye.user("Northern Energy")].sum(axis=0)
        assert grown.tolist() == [REQUESTS - LIMIT, 0, LIMIT, 0]
