"""What a throttled User gets: 503, when to come back, and that nothing was processed.

References: RFC 9110, 12.5.1 (Accept) and 15.6.4 (503); RFC 9457 (problem details, in JSON and, appendix B, in
XML); draft-ietf-httpapi-ratelimit-headers-10 (RateLimit fields, and the problem type). DUIS has no element for
"throttled": the HTTP status is the only signal every User sees.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from functools import lru_cache
from xml.sax.saxutils import escape

__all__ = ["Answer", "bad_request", "negotiate", "rate_limit_fields", "throttled"]

#: Headers (names as they are written) and body.
Answer = tuple[list[tuple[str, str]], bytes]

#: Media types of a body, the one preferred first.
OFFERED = (
    "application/problem+xml",
    "application/xml",
    "text/xml",
    "application/problem+json",
    "application/json",
)
TYPE = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
TITLE = "Request cannot be satisfied due to temporary server capacity constraints"
_LONGEST_ACCEPT = 1_024  # characters; a longer one counts as none


def throttled(wait_s: float, accept: str | None) -> Answer:
    """Return the 503 of a throttled Service Request.

    Parameters
    ----------
    wait_s : float
        Seconds until its retry slot, from `Mechanism.retry_after`.
    accept : str or None
        The request's header Accept.
    """
    # Rounded up: who waits it out must not come too early.
    wait_ms = max(1, math.ceil(wait_s * 1_000))
    seconds = -(-wait_ms // 1_000)
    media_type = negotiate(accept)
    problem = {
        "type": TYPE,
        "title": TITLE,
        "status": 503,
        "detail": "The Traffic Management Mechanism (SECMP0067) has throttled this Service Request. It was not "
        f"processed and may be sent again, unchanged, in {wait_ms} ms.",
        "decision": "THROTTLED",
        "processed": False,
        "retry-after-ms": wait_ms,
    }
    body = _rendered(problem, media_type)
    return [
        ("Content-Type", media_type),
        ("Content-Length", str(len(body))),
        ("Retry-After", str(seconds)),
        ("TMM-Retry-After-Ms", str(wait_ms)),
        ("TMM-Decision", "THROTTLED"),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
    ], body


def bad_request(fault: str, accept: str | None) -> Answer:
    """Return the 400 of a body that is no DUIS message, where those are refused."""
    media_type = negotiate(accept)
    problem = {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": f"This is no DUIS message: {fault}. It was not processed.",
        "processed": False,
    }
    body = _rendered(problem, media_type)
    headers = [("Content-Type", media_type), ("Content-Length", str(len(body))), ("Vary", "Accept")]
    return headers, body


def rate_limit_fields(allocation: float, wait_s: float) -> list[tuple[str, str]]:
    """Return the RateLimit fields of a throttled request; none without an allocation.

    Parameters
    ----------
    allocation : float
        Units per second; told as a quota of whole units in a window of whole seconds.
    wait_s : float
        Seconds until the retry slot.
    """
    rate = Fraction(repr(float(allocation))).limit_denominator(3_600)
    if not rate:
        return []
    return [
        ("RateLimit-Policy", f'"allocation";q={rate.numerator};w={rate.denominator}'),
        ("RateLimit", f'"allocation";r=0;t={max(1, math.ceil(wait_s))}'),
    ]


def negotiate(accept: str | None) -> str:
    """Return the media type of the answer: the acceptable one preferred first, or the first of all.

    A 503 that is not quite what was asked for is better than a 406.

    Examples
    --------
    >>> negotiate("application/json;q=0.5, application/problem+json, */*;q=0.1")
    'application/problem+json'
    >>> negotiate("image/png")
    'application/problem+xml'
    """
    if accept is None or len(accept) > _LONGEST_ACCEPT:
        return OFFERED[0]
    return _negotiated(accept)


@lru_cache(maxsize=256)
def _negotiated(accept: str) -> str:
    ranges = [_range(part) for part in accept.split(",") if part.strip()]
    best, best_quality = OFFERED[0], 0.0
    for media_type in OFFERED:
        matching = [
            (len(wanted), quality)
            for wanted, quality in ranges
            if wanted == media_type
            or wanted == "*/*"
            or (wanted.endswith("/*") and media_type.startswith(wanted[:-1]))
        ]
        # The most specific range decides: '*/*' is the shortest, 'type/*' next.
        quality = max(matching)[1] if matching else 0.0
        if quality > best_quality:
            best, best_quality = media_type, quality
    return best


def _range(part: str) -> tuple[str, float]:
    wanted, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return wanted, quality if 0 <= quality <= 1 else 0.0


def _rendered(problem: dict[str, object], media_type: str) -> bytes:
    if media_type.endswith("json"):
        return json.dumps(problem).encode()
    members = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in problem.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<problem xmlns="urn:ietf:rfc:7807">{members}</problem>\n'
    return text.encode()


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))
