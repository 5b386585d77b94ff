"""Who sends a Service Request: what the connection knows, and how far it can be believed.

A source of identity says for each request which User the connection belongs to, and, if it knows, which SRV is
asked for. What it leaves open is read from the DUIS header of the body, which is unsigned text: anybody can
write anybody's EUI-64 there. So an identity of the connection wins, and the header is only compared with it.

=====================  ======================================================  ===================================
source                 believes                                                only if
=====================  ======================================================  ===================================
`DuisHeader`           the originator in the body                              all senders are trusted
`HttpHeader`           headers such as ``TMM-User``                            a proxy in front removes them from
                                                                               what Users send, and sets its own
`ClientCertificate`    the TLS client certificate, by the server or a proxy    the server verifies it; by a header:
                                                                               as for `HttpHeader`
=====================  ======================================================  ===================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

__all__ = [
    "AmbiguousIdentityError",
    "ClientCertificate",
    "DuisHeader",
    "HttpHeader",
    "Identify",
    "Identity",
    "Source",
]

#: An identifier that no User has: the pool of unknown Users.
NOBODY = ""

_MOST = 4_096  # texts kept
_LONGEST = 64  # bytes; an EUI-64 has 23


class Identity(NamedTuple):
    """What is known of a Service Request without its body.

    Attributes
    ----------
    user_id : str or None
        EUI-64 or name of the User; ``""`` is an unknown one; None leaves it to the DUIS header.
    srv_code : str or None
        None leaves it to the DUIS header; with an SRV the body is not read at all.
    """

    user_id: str | None
    srv_code: str | None


#: Takes an ASGI scope or a WSGI environ.
Identify = Callable[[Mapping[str, Any]], "Identity | tuple[str | None, str | None]"]


class AmbiguousIdentityError(ValueError):
    """The connection says in two ways who it is; it counts as unknown."""


class Source(Protocol):
    """Where identities come from; a function from scope or environ to `Identity` will do as well.

    It must not raise on anything a User can send: a request on which it fails is admitted, as one on which the
    Mechanism fails. `AmbiguousIdentityError` alone makes it a request of the unknown Users.
    """

    def for_asgi(self) -> Identify: ...

    def for_wsgi(self) -> Identify: ...


@dataclass(frozen=True, slots=True)
class DuisHeader:
    """Believe the originator in the DUIS header: only where all senders are trusted."""

    def for_asgi(self) -> Identify:
        return lambda scope: (None, None)

    for_wsgi = for_asgi


@dataclass(frozen=True, slots=True)
class HttpHeader:
    """Believe HTTP headers set by a proxy in front.

    Parameters
    ----------
    user : str
        Header with the User's EUI-64 or name, in UTF-8.
    srv : str or None
        Header with the SRV; None, or a request without it: the DUIS header of the body says which. An SRV
        on the priority list is never throttled, so whoever can set this header can pass.
    fall_back : bool
        A request without the `user` header belongs to the originator in its DUIS header, which anybody can
        write, instead of to the pool of unknown Users.
    """

    user: str = "TMM-User"
    srv: str | None = "TMM-SRV"
    fall_back: bool = False

    def for_asgi(self) -> Identify:
        user_name = scope_name(self.user)
        srv_name = b"" if self.srv is None else scope_name(self.srv)
        missing = None if self.fall_back else NOBODY
        texts = Texts(header_text)

        def identify(scope: Mapping[str, Any]) -> tuple[str | None, str | None]:
            user_id = srv_code = None
            for name, value in scope["headers"]:
                if name == user_name:
                    if user_id is not None:
                        raise AmbiguousIdentityError(f"the header {self.user} is there twice")
                    user_id = texts[value]
                elif name == srv_name:
                    if srv_code is not None:
                        raise AmbiguousIdentityError(f"the header {self.srv} is there twice")
                    srv_code = texts[value]
            return missing if user_id is None else user_id, srv_code

        return identify

    def for_wsgi(self) -> Identify:
        user_name = environ_name(self.user)
        srv_name = "" if self.srv is None else environ_name(self.srv)
        missing = None if self.fall_back else NOBODY
        # A header that is there twice comes joined by a comma: no User and no SRV is called that.

        def identify(environ: Mapping[str, Any]) -> tuple[str | None, str | None]:
            user_id = environ.get(user_name)
            return missing if user_id is None else environ_text(user_id), environ.get(srv_name)

        return identify


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Believe the verified TLS client certificate.

    Parameters
    ----------
    attribute : str
        Attribute of the certificate's subject that names the User, by its short name as the server writes it
        (``CN``) or as a dotted number.
    header : str, optional
        Header in which a proxy in front hands on the subject: RFC 4514 text, as nginx writes
        ``$ssl_client_s_dn``, or Envoy's ``X-Forwarded-Client-Cert``. The proxy must remove it from what Users
        send. By default the server itself says: the ASGI extension ``tls``; in WSGI ``SSL_CLIENT_S_DN`` with
        ``SSL_CLIENT_VERIFY``, or the socket gunicorn hands on.
    verified : str, optional
        Header that must say ``SUCCESS`` (nginx ``$ssl_client_verify``), for a proxy that also lets requests
        without a certificate pass.
    srv : str, optional
        As in `HttpHeader`; by default the DUIS header says which SRV it is.
    fall_back : bool
        As in `HttpHeader`, for a request without a verified certificate.
    """

    attribute: str = "CN"
    header: str | None = None
    verified: str | None = None
    srv: str | None = None
    fall_back: bool = False

    def for_asgi(self) -> Identify:
        srv_name = None if self.srv is None else self.srv.lower().encode("latin-1")
        wanted = [name.lower().encode("latin-1") for name in (self.header, self.verified) if name is not None]

        def identify(scope: Mapping[str, Any]) -> tuple[str | None, str | None]:
            found: dict[bytes, str] = {}
            for name, value in scope["headers"]:
                if name in wanted or name == srv_name:
                    if name in found:
                        raise AmbiguousIdentityError(f"the header {name.decode('latin-1')} is there twice")
                    found[name] = header_text(value)
            if self.header is not None:
                subject = found.get(wanted[0])
                success = self.verified is None or found.get(wanted[-1]) == "SUCCESS"
            else:
                tls = (scope.get("extensions") or {}).get("tls") or {}
                subject = tls.get("client_cert_name")
                success = tls.get("client_cert_error") is None
            return self._user_of(subject if success else None), found.get(srv_name or b"")

        return identify

    def for_wsgi(self) -> Identify:
        srv_name = "" if self.srv is None else environ_name(self.srv)
        header = "" if self.header is None else environ_name(self.header)
        verified = "" if self.verified is None else environ_name(self.verified)

        def identify(environ: Mapping[str, Any]) -> tuple[str | None, str | None]:
            srv_code = environ.get(srv_name)
            if header:
                success = not verified or environ.get(verified) == "SUCCESS"
                return self._user_of(environ_text(environ.get(header, "")) if success else None), srv_code
            if environ.get("SSL_CLIENT_VERIFY") == "SUCCESS":
                return self._user_of(environ_text(environ.get("SSL_CLIENT_S_DN", ""))), srv_code
            getpeercert = getattr(environ.get("gunicorn.socket"), "getpeercert", None)
            certificate = getpeercert() if getpeercert is not None else None
            return self._user_of_certificate(certificate or {}), srv_code

        return identify

    def _user_of(self, subject: str | None) -> str | None:
        user_id = subject_attribute(subject, self.attribute) if subject else None
        if user_id is None and not self.fall_back:
            return NOBODY
        return user_id

    def _user_of_certificate(self, certificate: Mapping[str, Any]) -> str | None:
        """Take it from what ``ssl.SSLSocket.getpeercert`` says, whose names are the long ones."""
        wanted = _LONG_NAMES.get(self.attribute, self.attribute)
        values = [value for rdn in certificate.get("subject", ()) for name, value in rdn if name == wanted]
        if len(values) > 1:
            raise AmbiguousIdentityError(f"the certificate's subject has {len(values)} attributes {wanted}")
        return values[0] if values else None if self.fall_back else NOBODY


_LONG_NAMES = {
    "CN": "commonName",
    "O": "organizationName",
    "OU": "organizationalUnitName",
    "serialNumber": "serialNumber",
    "UID": "userId",
}
_LONGEST_SUBJECT = 2_048  # characters; a longer one counts as none
# Possessive throughout: hostile text is read once.
_ATTRIBUTE = re.compile(
    r" *+([A-Za-z][A-Za-z0-9-]*+|[0-9]++(?:\.[0-9]++)++) *+= *+"
    r"((?:\\[0-9A-Fa-f]{2}|\\[^0-9A-Fa-f]|[^\\,+\"])*+)([,+]|\Z)"
)
_ESCAPED = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)
_FORWARDED = re.compile(r'([A-Za-z]++)=("(?:\\.|[^"\\])*+"|[^;,"]*+)([;,]|\Z)')


@lru_cache(maxsize=1_024)
def _attribute_of(subject: str, attribute: str) -> str | None:
    values, at = [], 0
    while True:
        match = _ATTRIBUTE.match(subject, at)
        if match is None:
            return None  # not RFC 4514: believe nothing of it
        if match[1].lower() == attribute.lower():
            values.append(_ESCAPED.sub(_unescaped, match[2]).strip(" "))
        at = match.end()
        if not match[3]:
            break
    if len(values) > 1:
        raise AmbiguousIdentityError(f"the certificate's subject has {len(values)} attributes {attribute}")
    return values[0] if values else None


def subject_attribute(subject: str, attribute: str) -> str | None:
    """Return an attribute of a certificate's subject; None if it has none, or is not well formed.

    Parameters
    ----------
    subject : str
        A distinguished name (RFC 4514), or the value of Envoy's ``X-Forwarded-Client-Cert``.
    attribute : str
        For example ``CN``, in any case.

    Raises
    ------
    AmbiguousIdentityError
        There are several.

    Examples
    --------
    >>> subject_attribute(r"O=Northern\\, Ltd,CN=90-B3-D5-1F-30-01-00-00", "CN")
    '90-B3-D5-1F-30-01-00-00'
    >>> subject_attribute('By=spiffe://x;Subject="CN=Northern Energy,O=N"', "CN")
    'Northern Energy'
    """
    if len(subject) > _LONGEST_SUBJECT:
        return None
    forwarded = _FORWARDED.match(subject)
    if forwarded is not None and forwarded[1] in ("By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"):
        inside = _forwarded_subject(subject)
        return None if inside is None else _attribute_of(inside, attribute)
    return _attribute_of(subject, attribute)


def _forwarded_subject(value: str) -> str | None:
    subjects, at = [], 0
    while True:
        match = _FORWARDED.match(value, at)
        if match is None:
            return None
        if match[3] == ",":
            raise AmbiguousIdentityError("X-Forwarded-Client-Cert names several certificates")
        if match[1] == "Subject":
            text = match[2]
            subjects.append(re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text)
        at = match.end()
        if not match[3]:
            break
    if len(subjects) > 1:
        raise AmbiguousIdentityError("X-Forwarded-Client-Cert has several subjects")
    return subjects[0] if subjects else None


def _unescaped(match: re.Match[str]) -> str:
    if match[1] is not None:
        return bytes.fromhex(match[1].replace("\\", "")).decode("utf-8", "replace")
    return match[2]


def scope_name(header: str) -> bytes:
    """Return what an HTTP header is called in an ASGI scope."""
    return header.lower().encode("latin-1")


def environ_name(header: str) -> str:
    """Return what an HTTP header is called in a WSGI environ."""
    return "HTTP_" + header.upper().replace("-", "_")


def usual_fields(source: Source | Identify) -> tuple[str, ...] | None:
    """Return the HTTP headers that say User and SRV; none: the DUIS header does; None: neither."""
    if type(source) is DuisHeader:
        return ()
    if type(source) is HttpHeader and source.srv is not None:
        return source.user, source.srv
    return None


def header_text(value: bytes) -> str:
    """Return the text of an HTTP header: UTF-8, as a proxy writes a name; what is not UTF-8 is Latin-1.

    Examples
    --------
    >>> header_text("Énergie".encode()), header_text("Énergie".encode("latin-1"))
    ('Énergie', 'Énergie')
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def environ_text(value: str) -> str:
    """Return the text of an HTTP header in a WSGI environ, where each character stands for a byte (PEP 3333)."""
    if value.isascii():
        return value
    try:
        return header_text(value.encode("latin-1"))
    except UnicodeEncodeError:  # not of this kind: the server has decoded it
        return value


class Texts(dict[bytes, str]):
    """The text of a byte string, by subscription; of short ones the text is kept. *Thread-safe.*

    Parameters
    ----------
    make : callable
        Takes bytes, returns their text; called for what is not kept.

    Notes
    -----
    At most 4,096 texts of at most 64 bytes are kept; one more, and all are forgotten.

    Examples
    --------
    >>> texts = Texts(lambda value: value.decode("latin-1"))
    >>> texts[b"4.1.1"] is texts[b"4.1.1"]
    True
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[bytes], str]) -> None:
        self._make = make

    def __missing__(self, value: bytes) -> str:
        text = self._make(value)
        if len(value) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[value] = text
        return text
