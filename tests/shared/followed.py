"""The application the reload tests start: each worker follows the files; POST / decides, any other path only tells.

The time of day is what the file `TMM_TEST_CLOCK` says: the test decides when it is midnight.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.counted import FROZEN
from tmm_core import Mechanism
from tmm_core.reload import Reloader


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    snapshot = mechanism.snapshot(FROZEN)
    told: dict[str, Any] = {
        "worker": os.getpid(), "version": snapshot.version, "generation": snapshot.generation,
        "reloads": list(reloads),
    }  # fmt: skip
    if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] == "/":
        user, srv = mechanism.user("Northern Energy"), mechanism.srv("4.1.1")
        told["decision"] = mechanism.admit_at(user, srv, FROZEN).name
    body = json.dumps(told).encode()
    start_response("200 -", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def clock() -> datetime:
    name = os.environ.get("TMM_TEST_CLOCK")
    return (
        datetime.now(UTC) if name is None else datetime.fromisoformat(Path(name).read_text(encoding="utf-8"))
    )


reloads: list[str] = []
if "TMM_TEST_TOML" in os.environ:
    mechanism = Mechanism.open(os.environ["TMM_TEST_TOML"], start=FROZEN)
    Reloader(mechanism, tell=lambda each: reloads.append(each.kind), clock=clock, poll_s=0.05).start()
