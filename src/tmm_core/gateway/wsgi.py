"""WSGI middleware: the Traffic Management Mechanism in front of any WSGI application (PEP 3333)."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tmm_core.errors import DuisError
from tmm_core.gateway.answer import Answer, bad_request
from tmm_core.gateway.identify import NOBODY, environ_name, wsgi_identify
from tmm_core.gateway.middleware import Middleware
from tmm_core.gateway.wsgi_input import WsgiInput

__all__ = ["TrafficManagement"]


class TrafficManagement(Middleware[WSGIApplication]):
    """Throttle Service Requests in front of a WSGI application; its parameters are those of `Middleware`.

    Notes
    -----
    *Thread-safe.* At most 64 KiB of a body are held before the decision; the application gets every byte.
    """

    _identify_by = staticmethod(wsgi_identify)
    _name = staticmethod(environ_name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # The engine knows the usual request by itself; to any other it says None, and has done nothing.
        verdict = self._usual.ask_environ(environ)
        if verdict is False:
            body = environ["wsgi.input"] = WsgiInput(environ)
            verdict = self._usual.ask_body(body.begin())
        if verdict is True:
            return self._app(environ, start_response)
        if verdict:
            return _throttled(start_response, self._desk.answer(*verdict, environ.get("HTTP_ACCEPT")))
        return self._look(environ, start_response)

    def _look(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Decide on any request, with every question asked."""
        if environ["REQUEST_METHOD"] not in self._methods:
            return self._app(environ, start_response)
        sender = self._sender(environ)
        if sender is None:
            return self._app(environ, start_response)
        user_id, srv_code = sender
        if srv_code is None:
            body = environ["wsgi.input"]
            if type(body) is not WsgiInput:
                body = environ["wsgi.input"] = WsgiInput(environ)
            said: tuple[str, str] | DuisError
            try:
                said = body.read_names()
            except DuisError as error:
                said = error
            charged = self._charged(user_id, said)
            if charged is None and self._not_duis == "refuse":
                answer = bad_request(str(said), environ.get("HTTP_ACCEPT"))
                return _answer(start_response, "400 Bad Request", answer)
            if charged is None:
                return self._app(environ, start_response)
            user_id, srv_code = charged
        wait_s = self._desk.decide(user_id or NOBODY, srv_code)
        if wait_s is None:
            return self._app(environ, start_response)
        return _throttled(
            start_response, self._desk.answer(wait_s, user_id or NOBODY, environ.get("HTTP_ACCEPT"))
        )


def _throttled(start_response: StartResponse, answer: Answer) -> Iterable[bytes]:
    return _answer(start_response, "503 Service Unavailable", answer)


def _answer(start_response: StartResponse, status: str, answer: Answer) -> Iterable[bytes]:
    headers, body = answer
    start_response(status, headers)
    return [body]
