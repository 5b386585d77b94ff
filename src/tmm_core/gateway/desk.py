"""The desk where every gateway hands in a Service Request: names to gates, and what must be noticed.

It decides by the Mechanism, and where that cannot decide it admits, counts and shouts: the protection must not
become the outage. `Middleware` is what the ASGI and the WSGI middleware share: parameters, and whom to charge.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from tmm_core.engines import native
from tmm_core.errors import DuisError
from tmm_core.gateway import answer, duis
from tmm_core.gateway.identify import (
    NOBODY,
    AmbiguousIdentityError,
    DuisHeader,
    Identify,
    Source,
    usual_fields,
)
from tmm_core.mechanism import UNKNOWN, Mechanism

if TYPE_CHECKING:
    from tmm_core.engines import Gate, Reception

__all__ = ["Counts", "Desk", "GatewayEvent", "Middleware", "NotDuis"]

_log = logging.getLogger("tmm_core.gateway")

App = TypeVar("App")

#: The SRV, where the connection says it; else User and SRV in the DUIS header, or why there is none.
Said = str | tuple[str, str] | DuisError
#: What becomes of a body without a readable DUIS header; see `Middleware`.
NotDuis = Literal["charge", "pass", "refuse"]

#: Seconds between two words about the same thing.
QUIET_S = 1.0
#: Spellings of identifiers that are kept; an EUI-64 may be written in thousands of ways.
_MOST_GATES = 16_384
_KINDS = {
    "fail_open": logging.CRITICAL,
    "identity_disagrees": logging.WARNING,
    "identity_ambiguous": logging.WARNING,
    "not_duis": logging.INFO,
}


@dataclass(slots=True)
class Counts:
    """What one gateway has noticed since it started, in this process. *Thread-safe.*

    Attributes
    ----------
    fail_open : int
        Requests admitted because the Mechanism, or `identify`, failed; 0 in a healthy system.
    identity_disagrees : int
        DUIS headers that name another User than the connection's; charged to the connection's.
    identity_ambiguous : int
        Connections that say in two ways who they are; charged to the unknown Users.
    not_duis : int
        Bodies without a readable DUIS header.
    """

    fail_open: int = 0
    identity_disagrees: int = 0
    identity_ambiguous: int = 0
    not_duis: int = 0


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """Something to notice at a gateway, told at once and then at most every second.

    Attributes
    ----------
    kind : {"fail_open", "identity_disagrees", "identity_ambiguous", "not_duis"}
    message : str
        About the latest of them.
    count : int
        How many there have been since this gateway started, in this process.
    counts : Counts
        All that the gateway has noticed, by now: the last of a burst are told of by no event.
    """

    kind: str
    message: str
    count: int
    counts: Counts = field(default_factory=Counts, repr=False, compare=False)


# One lock for what is rare; renewed in a child, where its holder may be a thread that was not forked.
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Desk:
    """Decide on Service Requests by names, and keep count of what is not as it should be. *Thread-safe.*

    Parameters
    ----------
    mechanism : Mechanism
    rate_limit_fields : bool
        Tell a throttled User its allocation in the RateLimit fields of the draft.
    on_event : callable, optional
        Gets each `GatewayEvent`, in the thread of a request: at most one a second and kind.
    """

    __slots__ = ("_gates", "_on_event", "_rate_limit_fields", "_srvs", "_told_at", "counts", "mechanism")

    def __init__(
        self,
        mechanism: Mechanism,
        *,
        rate_limit_fields: bool = False,
        on_event: Callable[[GatewayEvent], object] | None = None,
    ) -> None:
        self.mechanism = mechanism
        self.counts = Counts()
        self._rate_limit_fields = rate_limit_fields
        self._on_event = on_event
        self._gates: dict[str, Gate] = {}
        self._srvs: dict[str, int] = {}
        self._told_at = dict.fromkeys(_KINDS, -QUIET_S)

    def decide(self, user_id: str, srv_code: str) -> float | None:
        """Decide on one Service Request.

        Returns
        -------
        float or None
            Seconds until its retry slot, if it is throttled; None: it is admitted.
        """
        try:
            gate = self._gates.get(user_id) or self._gate(user_id)
            if gate.admit(self._srvs.get(srv_code) or self._number(srv_code)):
                return None
            return gate.retry_after()
        except Exception as error:
            self.fail_open(error)
            return None

    def reception(self, methods: frozenset[str], fields: tuple[bytes | str, ...] | None) -> Reception:
        """Return what decides on the usual request of a User and SRV that this desk has seen before, in one call.

        `fields` are what the server calls the HTTP headers with User and SRV; none: the DUIS header says; None: no
        request is usual.
        """
        usual = frozenset() if fields is None else methods
        return native.Reception(self._gates, self._srvs, usual, duis.kinds, fields or ())

    def unidentified(self, error: Exception) -> bool:
        """Note what `identify` raised; return whether the unknown Users are charged, else all is admitted."""
        if isinstance(error, AmbiguousIdentityError):
            self.note("identity_ambiguous", str(error))
            return True
        self.fail_open(error)
        return False

    def judge(self, user_id: str, originator: str) -> str:
        """Return whom to charge, given the connection's User and the originator in the DUIS header."""
        if originator != user_id and self.mechanism.user(originator) != self.mechanism.user(user_id):
            self.note(
                "identity_disagrees",
                f"the connection belongs to {user_id[:64]!a}, the DUIS header names {originator}; "
                "charged to the connection's User",
            )
        return user_id

    def answer(self, wait_s: float, user_id: str, accept: str | None) -> answer.Answer:
        """Return headers and body of the 503 of a throttled Service Request."""
        headers, body = answer.throttled(wait_s, accept)
        if self._rate_limit_fields:
            config = self.mechanism.config
            user = config.user_ids.get(user_id.upper(), user_id)
            allocation = config.allocations.get(user, config.unknown_allocation)
            headers += answer.rate_limit_fields(allocation, wait_s)
        return headers, body

    def fail_open(self, error: BaseException) -> None:
        """Count and shout that a request is admitted because nobody could decide on it."""
        self.note(
            "fail_open",
            f"nobody could decide ({type(error).__name__}: {error}): Service Requests are admitted UNPROTECTED",
        )

    def note(self, kind: str, message: str) -> None:
        """Count an incident; log it and tell `on_event`, the first at once, then at most every second."""
        with _lock:
            count = getattr(self.counts, kind) + 1
            setattr(self.counts, kind, count)
            now = time.monotonic()
            if now - self._told_at[kind] < QUIET_S:
                return
            self._told_at[kind] = now
        _log.log(_KINDS[kind], "%s (%d so far): %s", kind, count, message)
        if self._on_event is not None:
            try:
                self._on_event(GatewayEvent(kind, message, count, self.counts))
            except Exception:
                _log.exception("on_event failed")

    def _gate(self, user_id: str) -> Gate:
        known = self.mechanism.user(user_id) != 0
        name = user_id if known else UNKNOWN  # what is unknown today is asked for again each time
        gate = self._gates.get(name)
        if gate is None:
            if len(self._gates) >= _MOST_GATES:
                self._gates.clear()
            gate = self._gates[name] = self.mechanism.gate(name if known else NOBODY)
        return gate

    def _number(self, srv_code: str) -> int:
        number = self.mechanism.srv(srv_code)
        if number:
            self._srvs[srv_code] = number
        return number

    def __reduce__(self) -> Any:
        raise TypeError("a gateway belongs to one process: make it there")


class Middleware(Generic[App]):
    """Throttle Service Requests in front of an application.

    Parameters
    ----------
    app : ASGI or WSGI application
    mechanism : Mechanism
    identify : Source or callable
        Who sends a request; see `tmm_core.gateway.identify`. By default the DUIS header says, unsigned.
    methods : collection of str
        Only these are Service Requests; DUIS uses POST. All else passes through.
    not_duis : {"charge", "pass", "refuse"}
        What becomes of a body without a readable DUIS header, where that is needed: an ordinary request of the
        connection's User or the unknown Users, which the application validates; the same uncharged; or 400.
    rate_limit_fields : bool
        Tell a throttled User its allocation in RateLimit and RateLimit-Policy.
    on_event : callable, optional
        Gets each `GatewayEvent`.

    Notes
    -----
    *Thread-safe.*
    """

    #: What of a `Source` makes the function that identifies a request of this kind of server.
    _by: str
    #: Makes of a header's name what this kind of server calls it.
    _name: Callable[[str], bytes | str]

    def __init__(
        self,
        app: App,
        mechanism: Mechanism,
        identify: Source | Identify | None = None,
        *,
        methods: Collection[str] = ("POST",),
        not_duis: NotDuis = "charge",
        rate_limit_fields: bool = False,
        on_event: Callable[[GatewayEvent], object] | None = None,
    ) -> None:
        self._app = app
        source = identify or DuisHeader()
        self._identify: Identify = getattr(source, self._by, lambda: source)()  # type: ignore[assignment]
        self._methods = frozenset(methods)
        if not_duis not in ("charge", "pass", "refuse"):
            raise ValueError(f"not_duis {not_duis!r} must be 'charge', 'pass' or 'refuse'")
        self._not_duis = not_duis
        self._desk = Desk(mechanism, rate_limit_fields=rate_limit_fields, on_event=on_event)
        fields = usual_fields(source)
        names = None if fields is None else tuple(self._name(field) for field in fields)
        self._usual = self._desk.reception(self._methods, names)
        self._open()

    def _open(self) -> None:
        """Do what this kind of server needs besides."""

    @property
    def counts(self) -> Counts:
        """What this gateway has noticed, `fail_open` above all."""
        return self._desk.counts

    def _sender(self, request: Mapping[str, Any]) -> tuple[str | None, Said | None] | None:
        """Return User and SRV as far as the connection says; None: nobody can say, so it is admitted."""
        try:
            user_id, srv_code = self._identify(request)
        except Exception as error:
            return (NOBODY, None) if self._desk.unidentified(error) else None
        return user_id, srv_code

    def _refused(
        self, user_id: str | None, said: Said, accept: Callable[[], str | None]
    ) -> tuple[int, answer.Answer] | None:
        """Decide by all that is known; return status and answer of a request that is not let in."""
        if isinstance(said, tuple | DuisError):
            charged = self._charged(user_id, said)
            if charged is None:
                return (400, answer.bad_request(str(said), accept())) if self._not_duis == "refuse" else None
            user_id, said = charged
        wait_s = self._desk.decide(user_id or NOBODY, said)
        return None if wait_s is None else (503, self._desk.answer(wait_s, user_id or NOBODY, accept()))

    def _charged(
        self, user_id: str | None, said: tuple[str, str] | DuisError
    ) -> tuple[str | None, str] | None:
        """Return whom to charge for which SRV by what the body says; None: no DUIS, and not to be charged."""
        if isinstance(said, DuisError):
            self._desk.note("not_duis", str(said))
            return (user_id, "") if self._not_duis == "charge" else None
        originator, srv_code = said
        return originator if user_id is None else self._desk.judge(user_id, originator), srv_code
