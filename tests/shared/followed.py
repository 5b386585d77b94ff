"""The application the reload test starts: each worker follows the files; POST / decides, any other path only tells."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from shared.counted import FROZEN
from tmm_core import Mechanism
from tmm_core.reload import Reloader


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    told: dict[str, Any] = {"worker": os.getpid(), "version": mechanism.snapshot(FROZEN).version}
    if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/":
        user, srv = mechanism.user("Northern Energy"), mechanism.srv("4.1.1")
        told["decision"] = mechanism.admit_at(user, srv, FROZEN).name
    body = json.dumps(told).encode()
    start_response("200 -", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if "TMM_TEST_TOML" in os.environ:
    mechanism = Mechanism.open(os.environ["TMM_TEST_TOML"], start=FROZEN)
    Reloader(mechanism, poll_s=0.05).start()
