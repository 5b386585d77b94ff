"""What the ASGI and the WSGI middleware share: their parameters, and whom a request is charged to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from tmm_core.errors import DuisError
from tmm_core.gateway.desk import Counts, Desk, GatewayEvent, NotDuis, checked_not_duis
from tmm_core.gateway.identify import NOBODY, DuisHeader, Identify, Source, usual_fields
from tmm_core.mechanism import Mechanism

__all__ = ["Middleware"]

App = TypeVar("App")


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

    #: Makes the function that identifies a request of this kind of server.
    _identify_by: Callable[[Source | Identify], Identify]
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
        self._identify = self._identify_by(source)
        self._methods = frozenset(methods)
        self._not_duis = checked_not_duis(not_duis)
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

    def _sender(self, request: Mapping[str, Any]) -> tuple[str | None, str | None] | None:
        """Return User and SRV as far as the connection says; None: nobody can say, so it is admitted."""
        try:
            user_id, srv_code = self._identify(request)
        except Exception as error:
            return (NOBODY, None) if self._desk.unidentified(error) else None
        return user_id, srv_code

    def _charged(
        self, user_id: str | None, said: tuple[str, str] | DuisError
    ) -> tuple[str | None, str] | None:
        """Return whom to charge for which SRV by what the body says; None: no DUIS, and not to be charged."""
        if isinstance(said, DuisError):
            self._desk.note("not_duis", str(said))
            return (user_id, "") if self._not_duis == "charge" else None
        originator, srv_code = said
        return originator if user_id is None else self._desk.judge(user_id, originator), srv_code
