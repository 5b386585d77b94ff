"""The middlewares behave the same under every server, over real HTTP."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.drive import Reply
from gateway.messages import OTHER_USER, USER, compose
from gateway.servers import free_port, module, need, post, running

pytestmark = pytest.mark.timeout(90)

#: Server: the modules it needs, and its command; {port} is where it listens.
SERVERS = {
    "uvicorn": (["uvicorn"], "uvicorn --port {port} --log-level warning gateway.served:app"),
    "uvicorn, h11": (["uvicorn"], "uvicorn --port {port} --http h11 --log-level warning gateway.served:app"),
    "granian": (["granian"], "granian --port {port} --interface asgi --no-ws gateway.served:app"),
    "granian, WSGI": (["granian"], "granian --port {port} --interface wsgi gateway.served:wsgi_app"),
    "hypercorn": (["hypercorn"], "hypercorn --bind 127.0.0.1:{port} gateway.served:app"),
    "gunicorn": (
        ["gunicorn"],
        "gunicorn --bind 127.0.0.1:{port} --no-control-socket gateway.served:wsgi_app",
    ),
    "gunicorn, ASGI": (
        ["gunicorn"],
        "gunicorn --bind 127.0.0.1:{port} -k asgi --no-control-socket gateway.served:app",
    ),
    "gunicorn, threads": (
        ["gunicorn"],
        "gunicorn --bind 127.0.0.1:{port} --threads 4 --no-control-socket gateway.served:wsgi_app",
    ),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    modules, command = SERVERS[request.param]
    need(*modules)
    if sys.platform == "win32" and "gunicorn" in modules:
        pytest.skip("gunicorn does not run on Windows")
    port = free_port()
    log: Path = tmp_path_factory.mktemp("server") / "log"
    with running(module(*command.format(port=port).split()), port, log=log):
        yield port
    assert "Traceback" not in log.read_text(errors="replace")


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize("size", [600, 5_000, 300_000])
def test_a_message_arrives_unchanged(server: int, size: int) -> None:
    message = compose(size=size)
    reply = post(server, message)
    assert (reply.status, reply.body) == (200, digest(message))


def test_a_message_in_chunks_is_decided_on_and_arrives_unchanged(server: int) -> None:
    for user, status in ((USER, b"200"), (OTHER_USER, b"503")):
        message = compose(user=user, size=5_000)
        chunks = [message[i : i + 300] for i in range(0, len(message), 300)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        # All at once: a server may close the connection of who goes on sending after its 503.
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server), 20) as connection:
            connection.sendall(head + body)
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert answer.split()[1] == status
        assert (digest(message) in answer) == (status == b"200")


@pytest.mark.parametrize("size", [600, 60_000])
def test_a_throttled_user_is_answered_and_its_connection_stays_usable(
    server: int, size: int, request: pytest.FixtureRequest
) -> None:
    """The rest of its body is not waited for by the application, and not taken for the next request."""
    if size > 30_000 and "granian" in request.node.name:
        pytest.skip("granian closes the connection of who is still sending when the 503 is there")
    connection = HTTPConnection("127.0.0.1", server, timeout=20)
    for user, status in ((OTHER_USER, 503), (USER, 200), (OTHER_USER, 503)):
        connection.request("POST", "/", compose(user=user, size=size), {"Accept": "application/json"})
        answer = connection.getresponse()
        assert answer.status == status
        text = answer.read()
        if status == 503:
            headers = {name.lower(): value for name, value in answer.getheaders()}
            assert re.fullmatch(r"[1-9][0-9]*", headers["retry-after"])
            assert headers["tmm-decision"] == "THROTTLED"
            assert headers["content-type"] == "application/json"
            assert b"not processed" in text
    connection.close()


def test_http_headers_decide_without_the_body(server: int) -> None:
    def asked(user: str, srv: str) -> Reply:
        return post(server, b"no DUIS", {"TMM-User": user, "TMM-SRV": srv})

    assert asked(USER, "4.1.1").status == 200
    assert asked(OTHER_USER, "4.1.1").status == 503
    assert asked(OTHER_USER, "7.4").status == 200


def test_a_message_that_never_ends_is_decided_as_soon_as_its_header_is_there(server: int) -> None:
    """A slow sender holds its own connection, and gets its 503 without sending the rest."""
    head = compose(user=OTHER_USER, size=3_000)
    with socket.create_connection(("127.0.0.1", server), 20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + head)
        assert connection.recv(100).split(b"\r\n")[0].split()[1] == b"503"


#: What shows the memory of a process, of all its workers.
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs /proc: not on this system"
)


def resident(group: int) -> int:
    """Return the bytes in memory of a server and its workers, which are one process group."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((process / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                status = (process / "status").read_text()
                total += 1_024 * int(status.partition("VmRSS:")[2].split()[0])
    return total


def grown(port: int, group: int, stack: ExitStack, sent: bytes, senders: int) -> int:
    """Return by how many bytes a server grows by such clients, who keep their connections while others are served."""
    for _ in range(20):
        assert post(port, compose()).status == 200
    before = most = resident(group)
    for _ in range(senders):
        sender = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        sender.settimeout(0.3)
        with suppress(OSError):  # the server need not take what it does not look at
            sender.sendall(sent)
    for _ in range(100):  # each gives the server a turn at what has come meanwhile
        assert post(port, compose()).status == 200
        most = max(most, resident(group))
    print(f"{(most - before) / 1e6:.1f} MB more")
    return most - before


@needs_proc
def test_many_slow_senders_of_large_bodies_hold_little_memory(tmp_path: Path) -> None:
    """Sixty connections, each with a megabyte of white space before its header: 64 KiB of each are looked at."""
    need("uvicorn")
    port = free_port()
    command = module(*SERVERS["uvicorn"][1].format(port=port).split())
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
    body = compose(in_header=" " * 1_000_000).split(b"<sr:RequestID>")[0]
    with running(command, port, log=tmp_path / "log") as server, ExitStack() as stack:
        # All they have sent would be 60 MB.
        assert grown(port, server.pid, stack, head + body, 60) < 20_000_000


# A server without a limit for headers (uvicorn with httptools) holds them itself as long as the connection is open.
@needs_proc
@pytest.mark.parametrize("named", ["uvicorn, h11", "gunicorn, threads"])
@pytest.mark.parametrize("ended", [True, False], ids=["whole", "without an end"])
def test_many_senders_of_huge_headers_hold_little_memory(named: str, ended: bool, tmp_path: Path) -> None:
    """Forty connections, each with a megabyte in one of the headers that say who it is, and kept open."""
    modules, command = SERVERS[named]
    need(*modules)
    port = free_port()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTMM-SRV: 4.1.1\r\nTMM-User: " + b"9" * 1_000_000
    if ended:
        head += b"\r\nContent-Length: 1000\r\n\r\n"
    with (
        running(module(*command.format(port=port).split()), port, log=tmp_path / "log") as server,
        ExitStack() as stack,
    ):
        assert grown(port, server.pid, stack, head, 40) < 20_000_000  # all they have sent would be 40 MB


@needs_proc
def test_nothing_is_kept_of_huge_headers_when_their_clients_have_gone(tmp_path: Path) -> None:
    """Sixty requests, each with a megabyte of its own for User and for SRV: such texts are not kept."""
    need("uvicorn")
    port = free_port()
    # They reach the middleware, which knows no such User; without httptools uvicorn itself refuses so much.
    answer = b"503" if find_spec("httptools") else b"400"

    def ask(number: int) -> bytes:
        user, srv = (b"%07d" % (2 * number + other) * 142_857 for other in (0, 1))
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n"
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(head + b"TMM-User: " + user + b"\r\nTMM-SRV: " + srv + b"\r\n\r\n")
            return connection.recv(100).split()[1]

    with running(
        module(*SERVERS["uvicorn"][1].format(port=port).split()), port, log=tmp_path / "log"
    ) as server:
        assert {ask(number) for number in range(5)} == {answer}
        before = resident(server.pid)
        assert {ask(number) for number in range(5, 65)} == {answer}
        grew = resident(server.pid) - before
        assert post(port, compose()).status == 200
    print(f"{grew / 1e6:.1f} MB more")
    assert grew < 20_000_000  # all they have sent would be 120 MB
