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
from typing import Any, Protocol
from urllib.parse import urlsplit

from tmm_core.errors import ConfigError, Mistake
from tmm_core.operations.notices import Notice

__all__ = ["FileDrop", "Sender", "Smtp", "Webhook", "folder_name", "load_senders", "signature"]

_TIMEOUT_S = 10.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Sender(Protocol):
    """Something that delivers notices."""

    @property
    def name(self) -> str:
        """Name in the event log."""

    def accepts(self, user: str) -> bool:
        """Tell whether there is a way to this User."""

    def send(self, notice: Notice) -> None:
        """Deliver a notice, or raise; may be called again with the same notice."""


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
            parts = urlsplit(address)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
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

    file = Path(path)
    toml = load_toml(file)
    tables = toml.values
    senders: list[Sender] = []
    found: list[Mistake] = []

    def wrong(message: str, section: str, *keys: str, field: str) -> None:
        line, column = toml.place_of(section, *keys)
        found.append(Mistake(message, file=str(file), line=line, column=column, field=field))

    for name in sorted(tables.keys() - {"file", "webhook", "smtp"}):
        wrong(f"[{name}] is no sender, expected file, webhook or smtp", name, field=name)
    section = "file"
    try:
        if "file" in tables:
            senders.append(FileDrop(file.parent / tables["file"]["folder"]))
        if "webhook" in tables:
            section = "webhook"
            hooks = tables[section]
            urls = {user: hook["url"] for user, hook in hooks.items()}
            secrets = {user: os.environ.get(hook["secret_env"], "") for user, hook in hooks.items()}
            senders.append(Webhook(urls, secrets))
        if "smtp" in tables:
            section = "smtp"
            mail = tables[section]
            recipients = {user: tuple(addresses) for user, addresses in mail["recipients"].items()}
            login = None
            if "user" in mail:
                login = (mail["user"], os.environ.get(mail["password_env"], ""))
            senders.append(Smtp(mail["host"], mail["sender"], recipients, mail.get("port", 587), login))
    except ConfigError as error:
        for each in error.mistakes:
            user = each.field or ""
            wrong(
                each.message,
                section,
                user,
                "url" if each.message.endswith("https address") else "secret_env",
                field=user,
            )
    except KeyError as error:
        wrong(f"{error.args[0]} is missing", section, field=str(error.args[0]))
    except (TypeError, AttributeError) as error:
        wrong(f"is not of the form expected: {error}", section, field=section)
    if found:
        raise ConfigError(found)
    return senders
