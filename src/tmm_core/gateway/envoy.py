"""Envoy's rate limit service (``envoy.service.ratelimit.v3``) over the Mechanism; extra ``envoy``.

Envoy asks with descriptors: entries such as ``("user", "90-B3-D5-1F-30-01-00-00")`` and ``("srv", "4.1.1")``,
which its route configuration takes from the client certificate or from headers. It cannot send the body: where
the SRV is only in the message, use the ASGI middleware, by itself or behind Envoy's ``ext_authz``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tmm_core.gateway.answer import throttled
from tmm_core.gateway.desk import Counts, Desk, GatewayEvent
from tmm_core.gateway.identify import NOBODY
from tmm_core.mechanism import Mechanism

try:
    import grpc
    from envoy.config.core.v3.base_pb2 import HeaderValue
    from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
except ImportError as error:
    raise ImportError(f"Envoy's rate limit service needs: pip install 'tmm-core[envoy]' ({error})") from error

__all__ = ["RateLimitService", "serve"]

if TYPE_CHECKING:
    _Base = object
else:
    _Base = rls_pb2_grpc.RateLimitServiceServicer


class RateLimitService(_Base):
    """Answer Envoy's ``ShouldRateLimit``. *Thread-safe.*

    Parameters
    ----------
    mechanism : Mechanism
    domain : str, optional
        Only questions of this domain are decided; those of others are admitted uncharged. By default all are.
    user_key, srv_key : str
        Keys of the descriptor entries.
    on_event : callable, optional
        Gets each `GatewayEvent`.

    Notes
    -----
    One HTTP request is one Service Request, whatever ``hits_addend`` says. Of several descriptors the first with a
    user counts; without any it is a request of the unknown Users. Set ``rate_limited_status`` to
    ``ServiceUnavailable`` in Envoy, whose default is 429.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        *,
        domain: str | None = None,
        user_key: str = "user",
        srv_key: str = "srv",
        on_event: Callable[[GatewayEvent], object] | None = None,
    ) -> None:
        self._desk = Desk(mechanism, on_event=on_event)
        self._domain = domain
        self._user_key = user_key
        self._srv_key = srv_key

    @property
    def counts(self) -> Counts:
        """What this gateway has noticed, `fail_open` above all."""
        return self._desk.counts

    def ShouldRateLimit(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in Envoy's protocol
        """Decide on one request: OK or OVER_LIMIT, with the headers and the body of the 503."""
        answer = rls_pb2.RateLimitResponse
        if self._domain is not None and request.domain != self._domain:
            return answer(overall_code=answer.OK)
        user_id, srv_code = self._named(request.descriptors)
        wait_s = self._desk.decide(user_id, srv_code)
        codes = [answer.OVER_LIMIT if wait_s is not None else answer.OK] * len(request.descriptors)
        statuses = [answer.DescriptorStatus(code=code) for code in codes]
        if wait_s is None:
            return answer(overall_code=answer.OK, statuses=statuses)
        headers, body = throttled(wait_s, "application/problem+json")
        own = [HeaderValue(key=name, value=value) for name, value in headers if name not in _ENVOYS]
        return answer(
            overall_code=answer.OVER_LIMIT, statuses=statuses, response_headers_to_add=own, raw_body=body
        )

    def _named(self, descriptors: Any) -> tuple[str, str]:
        for descriptor in descriptors:
            entries = {entry.key: entry.value for entry in descriptor.entries}
            if self._user_key in entries:
                return entries[self._user_key], entries.get(self._srv_key, "")
        return NOBODY, ""


_ENVOYS = {"Content-Length", "Vary"}  # Envoy writes the length itself


def serve(service: RateLimitService, address: str, *, threads: int = 4) -> Any:
    """Start a gRPC server for Envoy and return it; ``stop(grace)`` ends it.

    Parameters
    ----------
    service : RateLimitService
    address : str
        ``unix:/path`` or ``127.0.0.1:8081``; anything else lets the network ask.
    threads : int
        Requests decided at the same time.

    Raises
    ------
    RuntimeError
        The address cannot be used.
    """
    server = grpc.server(ThreadPoolExecutor(threads, "tmm-envoy"), options=[("grpc.so_reuseport", 0)])
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(service, server)
    server.add_insecure_port(address)
    server.start()
    return server
