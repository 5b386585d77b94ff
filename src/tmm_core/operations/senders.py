"""How a notice reaches a Service User: a file, a signed webhook, a mail. Each raises when it could not deliver.

A sender is anything with a `name`, ``accepts(user)`` and ``send(notice)``; it runs in a thread of its own
(``notify.py``), where waiting and failing delay nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import re
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tmm_core.errors import ConfigError, Mistake
from tmm_core.operations.notify import Notice, Sender

if TYPE_CHECKING:
    from tmm_core.policy.toml_places import Toml

__all__ = ["FileDrop", "Sender", "Smtp", "Webhook", "folder_name", "load_senders", "signature"]

_TIMEOUT_S = 10.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class FileDrop:
    """Write each notice into a folder of the User's own, as text and as JSON, for others to fetch or pass on.

    Parameters
    ----------
    folder : path
        Under it there is a folder for each User, named by its name as far as a file system can bear.
    """

    folder: str | PathLike[str]
    name: str = "file"

    def accepts(self, user: str) -> bool:
        return True

    def send(self, notice: Notice) -> None:
        folder = Path(self.folder) / folder_name(notice.user)
        folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9.-]", "-", f"{notice.began}-{notice.notice}-{notice.event}")
        for suffix, text in ((".txt", notice.text()), (".json", notice.json())):
            part = folder / f".{stem}{suffix}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(folder / f"{stem}{suffix}")


def folder_name(user: str) -> str:
    """Return a folder's name for a User: two Users never share one, and none is outside."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", user).strip("-")[:60]
    return f"{plain}-{hashlib.sha256(user.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}".lstrip("-")


def signature(secret: str, at_s: int, body: bytes) -> str:
    """Return the value of ``TMM-Signature``: HMAC-SHA256 over the time, a dot, and the body.

    Examples
    --------
    >>> signature("secret", 1764547200, b"{}")[:20]
    't=1764547200,v1=2001'
    """
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def _is_safe(address: str) -> bool:
    """Tell whether an address can be reached, and nobody reads on the way: https, or this machine."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return (
        bool(host)
        and port != 0
        and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None  # a notice goes where it was configured to go, or nowhere


@dataclass(frozen=True)
class Webhook:
    """POST each notice as JSON to the User's own address, signed with the User's own secret.

    Parameters
    ----------
    addresses : mapping of str to str
        By User; ``https`` unless it is this machine. Redirects are not followed.
    secrets : mapping of str to str
        By User. ``TMM-Signature`` is ``t=<seconds>,v1=<HMAC-SHA256 of "<seconds>.<body>">``;
        ``Idempotency-Key`` is the same for each attempt at one notice.

    Raises
    ------
    ConfigError
        All wrong addresses and missing secrets at once.
    """

    addresses: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    name: str = "webhook"
    timeout_s: float = _TIMEOUT_S
    now_s: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        found = []
        for user, address in self.addresses.items():
            if not _is_safe(address):
                found.append(
                    Mistake(f"webhook of {user!r}: {address!r}, expected an https address", field=user)
                )
            if not self.secrets.get(user):
                found.append(Mistake(f"webhook of {user!r}: no secret to sign with", field=user))
        if found:
            raise ConfigError(found)

    def accepts(self, user: str) -> bool:
        return user in self.addresses

    def send(self, notice: Notice) -> None:
        body = notice.json().encode()
        request = urllib.request.Request(
            self.addresses[notice.user],
            data=body,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "User-Agent": "tmm-core",
                "Idempotency-Key": notice.id,
                "TMM-Signature": signature(self.secrets[notice.user], int(self.now_s()), body),
            },
        )
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=self.timeout_s) as answer:
                if not 200 <= answer.status < 300:
                    raise OSError(f"answered {answer.status}")
        except urllib.error.HTTPError as error:
            error.close()
            raise OSError(f"answered {error.code}") from None
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer: {error!r}") from None


@dataclass(frozen=True)
class Smtp:
    """Mail each notice to the User's own addresses.

    Parameters
    ----------
    host, port
        Of the mail server; STARTTLS is required unless it is this machine.
    sender : str
        Address the mail is from.
    recipients : mapping of str to sequence of str
        By User.
    login : tuple of str, optional
        Name and password.
    """

    host: str
    sender: str
    recipients: Mapping[str, tuple[str, ...]]
    port: int = 587
    login: tuple[str, str] | None = field(default=None, repr=False)
    name: str = "smtp"
    timeout_s: float = _TIMEOUT_S

    def accepts(self, user: str) -> bool:
        return bool(self.recipients.get(user))

    def send(self, notice: Notice) -> None:
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = ", ".join(self.recipients[notice.user])
        message["Subject"] = notice.subject()
        message["Date"] = formatdate(usegmt=True)
        message["Message-ID"] = f"<{hashlib.sha256(notice.id.encode()).hexdigest()[:32]}@tmm-core>"
        message.set_content(notice.body())
        message.add_attachment(
            notice.json().encode(), maintype="application", subtype="json", filename="notice.json"
        )
        try:
            with smtplib.SMTP(
                self.host, self.port, timeout=self.timeout_s, local_hostname="tmm-core"
            ) as server:
                if self.host not in _LOOPBACK:
                    server.starttls(context=ssl.create_default_context())
                if self.login is not None:
                    server.login(*self.login)
                server.send_message(message)
        except smtplib.SMTPException as error:
            raise OSError(f"the mail server refused: {error}") from None


def load_senders(path: str | PathLike[str]) -> list[Sender]:
    """Read who is told how, in TOML.

    Raises
    ------
    ConfigError
        All mistakes at once.

    Notes
    -----
    ::

        [file]
        folder = "notices"

        [webhook."Northern Energy"]
        url        = "https://northern.example/tmm"
        secret_env = "TMM_SECRET_NORTHERN"     # the environment variable that holds the secret

        [smtp]
        host = "mail.example"
        sender = "toc@dcc.example"
        [smtp.recipients]
        "Northern Energy" = ["operations@northern.example"]
    """
    from tmm_core.policy.toml_places import load_toml

    reader = _SenderFile(str(path), load_toml(path))
    senders = reader.read()
    if reader.found:
        raise ConfigError(reader.found)
    return senders


class _SenderFile:
    """The tables of a file of senders, and the mistakes in them."""

    def __init__(self, file: str, toml: Toml) -> None:
        self.found: list[Mistake] = []
        self._file, self._toml = file, toml

    def read(self) -> list[Sender]:
        tables = self._toml.values
        readers: dict[str, Callable[[Any], Sender | None]] = {
            "file": self._file_drop, "webhook": self._webhook, "smtp": self._smtp,
        }  # fmt: skip
        for name in sorted(tables.keys() - readers.keys()):
            self._wrong(f"[{name}] is no sender, expected file, webhook or smtp", name)
        if not tables:
            self._wrong("names no sender, expected [file], [webhook] or [smtp]")
        made = [read(tables[name]) for name, read in readers.items() if self._is_table(tables, name)]
        return [sender for sender in made if sender is not None]

    def _file_drop(self, table: Any) -> Sender | None:
        self._only(("folder",), "file")
        folder = self._text(table, "folder", "file")
        return FileDrop(Path(self._file).parent / folder) if folder else None

    def _webhook(self, table: Any) -> Sender | None:
        before = len(self.found)
        urls, secrets = {}, {}
        for user in table:
            if self._is_table(table, user, "webhook"):
                self._only(("url", "secret_env"), "webhook", user)
                urls[user] = self._text(table[user], "url", "webhook", user)
                secrets[user] = os.environ.get(self._text(table[user], "secret_env", "webhook", user), "")
        if len(self.found) > before:
            return None
        try:
            return Webhook(urls, secrets)
        except ConfigError as error:
            for each in error.mistakes:
                key = "url" if each.message.endswith("https address") else "secret_env"
                self._wrong(each.message, "webhook", each.field or "", key)
        return None

    def _smtp(self, table: Any) -> Sender | None:
        before = len(self.found)
        self._only(("host", "sender", "recipients", "port", "user", "password_env"), "smtp")
        host, sender = (self._text(table, key, "smtp") for key in ("host", "sender"))
        recipients = {}
        if self._is_table(table, "recipients", "smtp"):
            for user, given in table["recipients"].items():
                if (
                    not isinstance(given, list)
                    or not given
                    or not all(each and isinstance(each, str) for each in given)
                ):
                    fault = f"recipients of {user!r}: {given!r}, expected a list of addresses"
                    self._wrong(fault, "smtp", "recipients", user)
                else:
                    recipients[user] = tuple(given)
        port = table.get("port", 587)
        if type(port) is not int or not 1 <= port <= 65_535:
            self._wrong(f"port {port!r}, expected 1 to 65535", "smtp", "port")
        login = None
        if "user" in table or "password_env" in table:
            variable = self._text(table, "password_env", "smtp")
            login = (self._text(table, "user", "smtp"), os.environ.get(variable, ""))
            if variable and not login[1]:
                self._wrong(f"{variable} is not set: no password for {login[0]!r}", "smtp", "password_env")
        return None if len(self.found) > before else Smtp(host, sender, recipients, port, login)

    def _wrong(self, message: str, *keys: str, at_key: bool = False) -> None:
        line, column = (self._toml.place_of_key if at_key else self._toml.place_of)(*keys)
        where = keys[-1] if keys else None
        self.found.append(Mistake(message, file=self._file, line=line, column=column, field=where))

    def _is_table(self, values: Any, key: str, *above: str) -> bool:
        """Whether there is a table of that name; what is none is a mistake, and so is one missing in another."""
        if isinstance(values.get(key), dict):
            return True
        if key in values:
            self._wrong(f"is not of the form expected, a table: {values[key]!r}", *above, key)
        elif above:
            self._wrong(f"{key} is missing", *above)
        return False

    def _only(self, known: tuple[str, ...], *path: str) -> None:
        table: Any = self._toml.values
        for key in path:
            table = table[key]
        for key in sorted(table.keys() - set(known)):
            self._wrong(f"unknown key {key!r}, expected {', '.join(known)}", *path, key, at_key=True)

    def _text(self, table: Any, key: str, *path: str) -> str:
        """Return a text; empty if it is a mistake."""
        value = table.get(key)
        if isinstance(value, str) and value:
            return value
        if key in table:
            self._wrong(f"{key} {value!r} must be a text", *path, key)
        else:
            self._wrong(f"{key} is missing", *path)
        return ""
