"""SECMP0067, F9 and F10, as a User sees them over HTTP."""

from __future__ import annotations

import json

from gateway.drive import active_mechanism, both, post
from gateway.messages import OTHER_USER, USER, compose
from tmm_core import Config, Mechanism


@both
def test_f9_a_throttled_request_gets_http_503_and_the_user_must_retry(door: str) -> None:
    """F9: a throttled request gets HTTP 503 and the User must retry; nothing is held for it."""
    mechanism = active_mechanism(allocations={"Quiet Energy": 300.0, "Flooding Energy": 0.01})
    message = compose(user=OTHER_USER)
    assert post(door, mechanism, message).status == 200  # inside the allocation
    reply = post(door, mechanism, message)
    assert reply.status == 503
    assert reply.received is None  # not processed, and not kept to be processed later
    # When to retry: 0.01 per second is one each 100 s, of which a second of burst may be taken off.
    assert 90_000 < int(reply.headers["tmm-retry-after-ms"]) <= 100_000
    assert int(reply.headers["retry-after"]) <= 100


@both
def test_f9_nobody_is_throttled_in_normal_operation(door: str) -> None:
    """F2, F9: a User far over its allocation is served while the Mechanism is inactive."""
    with Mechanism(Config(50_000, 40_000, allocations={"Flooding Energy": 0.01}, user_ids={})) as mechanism:
        message = compose(user=OTHER_USER)
        assert {post(door, mechanism, message).status for _ in range(20)} == {200}


@both
def test_f10_the_503_can_be_told_from_the_network_layers_own(door: str) -> None:
    """F10: the network layer's own 503 to all Users exists already; ours says who it is from, for whom, and why."""
    reply = post(door, active_mechanism(), compose(user=OTHER_USER), [("Accept", "application/json")])
    assert reply.headers["tmm-decision"] == "THROTTLED"
    problem = json.loads(reply.body)
    assert "Traffic Management Mechanism (SECMP0067)" in problem["detail"]
    assert problem["processed"] is False
    # And only the Users above their allocation get it.
    assert post(door, active_mechanism(), compose(user=USER)).status == 200
