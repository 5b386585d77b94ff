"""The examples run as they are: each is started, asked, and ended here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.messages import OTHER_USER, USER, compose
from gateway.servers import EXAMPLES, ROOT, end, free_port, need, post, post_many, running
from tmm_core import Config
from tmm_core.gateway.duis import read_header

pytestmark = pytest.mark.timeout(90)

PRIORITY_SRV = "7.4"
# 0.02 units per second with a burst of 500 s: a bucket at rest admits 0.02 * 500 + 1 = 11, then one each 50 s.
EXACTLY = 11


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration in which USER is never throttled and OTHER_USER is sent away after 11 requests."""
    (tmp_path / "tmm.toml").write_text(
        f"""
[capacity]
system_capacity = 500
operating_threshold = 400
[mechanism]
sharing = "none"
burst_s = 500
hold_s = 3600
[files]
allocations = "allocations.csv"
priority_list = "priority-list.toml"
[costs]
"{PRIORITY_SRV}" = 1000
[state]
shared = "{tmp_path}/block"
"""
    )
    (tmp_path / "allocations.csv").write_text(
        "user,category,user_ids,allocation\n"
        f"Quiet Energy,large-supplier,{USER},200\n"
        f"Flooding Energy,small-supplier,{OTHER_USER},0.02\n"
    )
    (tmp_path / "priority-list.toml").write_text(
        'version = "1"\neffective_from = 2026-11-01\napproved_by = "a test"\nsource = "a test"\n'
        f'srvs = ["{PRIORITY_SRV}"]\n'
    )
    return tmp_path / "tmm.toml"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def activate(port: int, path: str = "/", headers: dict[str, str] | None = None) -> None:
    """Make the Mechanism active by what is never throttled; 1,000 units are 2.5 s of the threshold."""
    assert post(port, compose(PRIORITY_SRV, user=USER), headers, path).status == 200


def assert_the_allocation_is_one(port: int, *, path: str = "/") -> None:
    activate(port, path)
    flood = post_many(port, [compose(user=OTHER_USER, counter=n) for n in range(60)], path=path)
    admitted = [reply for reply in flood if reply.status == 200]
    throttled = [reply for reply in flood if reply.status == 503]
    assert len(admitted) + len(throttled) == 60
    # One allocation, however many workers decide: not one for each.
    assert len(admitted) == EXACTLY
    for reply in throttled:
        assert reply.headers["tmm-decision"] == "THROTTLED"
        assert 0 < int(reply.headers["tmm-retry-after-ms"]) <= 1_000 * int(reply.headers["retry-after"])
    # The others are not touched, and neither is what is on the priority list.
    others = post_many(port, [compose(user=USER, size=5_000)] * 20, path=path)
    assert {reply.status for reply in others} == {200}
    assert post(port, compose(PRIORITY_SRV, user=OTHER_USER), path=path).status == 200


def documented(*words: str) -> str:
    """Return the one command of docs/gateways.md in which these words stand."""
    page = (ROOT / "docs" / "gateways.md").read_text()
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", page, re.S))
    lines = {*re.findall(r"^\| .* \| `(.+)` \|$", page, re.M), *blocks.splitlines()}
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found.removesuffix(" &")


def started(command: str, *options: str) -> list[str]:
    """Return a documented command as a shell runs it, with more options behind it."""
    path = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    return ["sh", "-c", f"{path}; export PATH; {command} {shlex.join(options)}"]


def uvicorn(app: str, port: int) -> list[str]:
    command = re.sub(r"--port \d+ |TMM_DSP=\S+ ", "", documented("uvicorn", f" {app}:app"))
    return started(command, "--port", str(port), "--log-level", "warning")


def test_the_examples_configuration_is_right() -> None:
    config = Config.load(EXAMPLES / "tmm.toml")
    assert config.user_ids["90-B3-D5-1F-30-01-00-01"] == "Northern Energy"
    assert config.shared is not None
    header = read_header((EXAMPLES / "message.xml").read_bytes())
    assert (config.user_ids[header.user_id], header.srv_code) == ("Northern Energy", "4.1.1")


def test_each_example_tells_the_command_that_is_documented() -> None:
    told = {
        "starlette_app.py": documented("uvicorn", "starlette_app"),
        "flask_app.py": documented("gunicorn", "--workers 4 --chdir"),
        "duis_proxy.py": documented("duis_proxy"),
        "decision_app.py": documented("decision_app"),
        "stub_dsp.py": documented("uvicorn", "stub_dsp"),
        "envoy_service.py": documented("envoy_service"),
        "envoy.yaml": documented("envoy -c"),
        "nginx.conf": documented("nginx -p"),
    }
    for name, command in told.items():
        assert command in (EXAMPLES / name).read_text(), name
    curl = "curl -i --data-binary @examples/gateway/message.xml http://127.0.0.1:8000/"
    for file in (ROOT / "docs" / "gateways.md", *(EXAMPLES / name for name in list(told)[:3])):
        assert curl in file.read_text(), file


def test_an_example_runs_with_its_own_configuration_and_message(tmp_path: Path, stack: ExitStack) -> None:
    """As a reader runs it, but for the port and the place of the block, which must not be that of a real one."""
    need("starlette", "uvicorn")
    folder = shutil.copytree(EXAMPLES, tmp_path / "examples" / "gateway")
    text = (folder / "tmm.toml").read_text()
    assert '"tmm-gateway-example"' in text
    (folder / "tmm.toml").write_text(text.replace("tmm-gateway-example", f"{tmp_path}/block"))
    port = free_port()
    stack.enter_context(running(uvicorn("starlette_app", port), port, log=tmp_path / "log", cwd=tmp_path))
    message = (folder / "message.xml").read_bytes()
    reply = post(port, message)
    assert reply.status == 200
    assert reply.body.startswith(b"processed %d bytes in process " % len(message))
    assert (tmp_path / "block").exists()


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ("uvicorn", "--port {port} --log-level warning"),
        pytest.param("granian", "--port {port}", marks=pytest.mark.slow),
        pytest.param("hypercorn", "--bind 127.0.0.1:{port}", marks=pytest.mark.slow),
    ],
)
def test_starlette_with_two_workers(
    server: str, options: str, config: Path, stack: ExitStack, tmp_path: Path
) -> None:
    need("starlette", server)
    port = free_port()
    command = started(documented(server, "starlette_app"), *options.format(port=port).split())
    stack.enter_context(running(command, port, log=tmp_path / "log", env={"TMM_CONFIG": str(config)}))
    assert_the_allocation_is_one(port)


@pytest.mark.parametrize("how", ["--workers 4 --chdir", "--preload"], ids=["pre-fork", "preload"])
def test_flask_under_gunicorn_with_four_workers(
    how: str, config: Path, stack: ExitStack, tmp_path: Path
) -> None:
    need("flask", "gunicorn")
    port = free_port()
    command = started(documented("gunicorn", how), "--bind", f"127.0.0.1:{port}", "--no-control-socket")
    stack.enter_context(running(command, port, log=tmp_path / "log", env={"TMM_CONFIG": str(config)}))
    assert_the_allocation_is_one(port)


def test_the_duis_proxy_in_front_of_a_stub_dsp(config: Path, stack: ExitStack, tmp_path: Path) -> None:
    need("uvicorn", "httpx")
    dsp, port = free_port(), free_port()
    stub = stack.enter_context(running(uvicorn("stub_dsp", dsp), dsp, log=tmp_path / "log"))
    env = {"TMM_CONFIG": str(config), "TMM_DSP": f"http://127.0.0.1:{dsp}"}
    stack.enter_context(running(uvicorn("duis_proxy", port), port, log=tmp_path / "log", env=env))
    reply = post(port, compose(size=20_000), path="/services/send?x=1")
    assert (reply.status, reply.body) == (200, b"the DSP got POST /services/send with 20000 bytes\n")
    # What both servers say of themselves is there once: a reply's headers come joined by a comma.
    assert "," not in reply.headers["server"]
    assert_the_allocation_is_one(port)
    # The infrastructure's own 503 passes, and cannot be mistaken for the Mechanism's.
    reply = post(port, compose(), path="/503")
    assert (reply.status, "tmm-decision" in reply.headers) == (503, False)
    end(stub)
    assert post(port, compose()).status == 502


def test_the_duis_proxy_believes_the_certificates_subject_before_the_message(
    config: Path, stack: ExitStack, tmp_path: Path
) -> None:
    need("uvicorn", "httpx")
    dsp, port = free_port(), free_port()
    stack.enter_context(running(uvicorn("stub_dsp", dsp), dsp, log=tmp_path / "log"))
    env = {
        "TMM_CONFIG": str(config),
        "TMM_DSP": f"http://127.0.0.1:{dsp}",
        "TMM_SUBJECT_HEADER": "X-SSL-Client-S-DN",
    }
    stack.enter_context(running(uvicorn("duis_proxy", port), port, log=tmp_path / "log", env=env))
    activate(port)
    # All messages say they come from the quiet User; the connection belongs to the flooding one.
    headers = {"X-SSL-Client-S-DN": f"CN={OTHER_USER},O=Flooding"}
    flood = post_many(port, [compose(user=USER)] * 30, headers=headers)
    assert [reply.status for reply in flood].count(200) == EXACTLY


# --- nginx


@pytest.fixture
def nginx(config: Path, stack: ExitStack, tmp_path: Path) -> tuple[int, ExitStack]:
    """nginx with the example's configuration, the decision app in a stack of its own, and a stub DSP."""
    need("uvicorn")
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("not installed: nginx")
    port, decision, dsp = free_port(), free_port(), free_port()
    text = (EXAMPLES / "nginx.conf").read_text()
    for old, new in ((8080, port), (8001, decision), (8002, dsp)):
        assert f"127.0.0.1:{old}" in text
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    (tmp_path / "nginx.conf").write_text(text)
    log = tmp_path / "log"
    stack.enter_context(running(uvicorn("stub_dsp", dsp), dsp, log=log))
    decisions = stack.enter_context(ExitStack())
    decisions.enter_context(
        running(uvicorn("decision_app", decision), decision, log=log, env={"TMM_CONFIG": str(config)})
    )
    main = "daemon off;" + (" user root;" if os.getuid() == 0 else "")
    command = [binary, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-g", main]
    stack.enter_context(running(command, port, log=log))
    return port, decisions


def test_nginx_hands_on_by_x_accel_redirect_what_the_decision_app_admits(
    nginx: tuple[int, ExitStack],
) -> None:
    port, decisions = nginx
    reply = post(port, compose(size=20_000), path="/services/send?x=1")
    assert (reply.status, reply.body) == (200, b"the DSP got POST /services/send with 20000 bytes\n")
    assert "x-accel-redirect" not in reply.headers
    # What a User says of itself in headers is taken away.
    reply = post(port, compose(), {"TMM-User": "Flooding Energy", "TMM-SRV": PRIORITY_SRV})
    assert reply.status == 200
    assert_the_allocation_is_one(port)
    assert post(port, compose(user=OTHER_USER), {"TMM-SRV": PRIORITY_SRV}).status == 503
    reply = post(port, compose(), path="/503")
    assert (reply.status, "tmm-decision" in reply.headers) == (503, False)
    decisions.close()  # the decision app is gone: unprotected, but no outage
    reply = post(port, compose(user=OTHER_USER, size=20_000))
    assert (reply.status, reply.body) == (200, b"the DSP got POST / with 20000 bytes\n")


def test_nginx_asks_by_auth_request_where_headers_say_who_it_is(nginx: tuple[int, ExitStack]) -> None:
    port, decisions = nginx
    path, quiet, flooding = "/auth/x", {"TMM-User": USER}, {"TMM-User": OTHER_USER, "TMM-SRV": "4.1.1"}
    activate(port, path, {**quiet, "TMM-SRV": PRIORITY_SRV})
    reply = post(port, b"x" * 50_000, {**quiet, "TMM-SRV": "4.1.1"}, path)
    assert (reply.status, reply.body) == (200, b"the DSP got POST /auth/x with 50000 bytes\n")
    flood = post_many(port, [b"x"] * 40, headers=flooding, path=path)
    assert [reply.status for reply in flood].count(200) == EXACTLY
    for reply in flood:
        if reply.status != 200:
            assert reply.status == 503
            assert reply.headers["tmm-decision"] == "THROTTLED"
            assert int(reply.headers["retry-after"]) == -(-int(reply.headers["tmm-retry-after-ms"]) // 1_000)
            assert json.loads(reply.body)["retry-after-ms"] == int(reply.headers["tmm-retry-after-ms"])
    reply = post(port, b"x", {**quiet, "TMM-SRV": "4.1.1"}, "/auth/503")
    assert (reply.status, "tmm-decision" in reply.headers) == (503, False)
    decisions.close()
    assert post(port, b"x", flooding, path).status == 200
