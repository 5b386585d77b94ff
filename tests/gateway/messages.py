"""DUIS-shaped messages, composed from the facts of the schema; none is a sample of the DCC's."""

from __future__ import annotations

NAMESPACE = "http://www.dccinterface.co.uk/ServiceUserGateway"
USER = "90-B3-D5-1F-30-01-00-00"
OTHER_USER = "90-B3-D5-1F-30-02-00-00"
TARGET = "00-DB-12-34-56-78-90-A0"


def compose(
    srv: str = "4.1.1",
    *,
    user: str = USER,
    target: str = TARGET,
    counter: int | str = 1000,
    variant: int | str = 1,
    reference: str | None = None,
    prefix: str = "sr:",
    version: str = "5.4",
    declaration: str = '<?xml version="1.0" encoding="UTF-8"?>\n',
    namespace: str = NAMESPACE,
    before_variant: str = "",
    in_header: str = "",
    size: int = 0,
) -> bytes:
    """Return a DUIS message in UTF-8.

    Parameters
    ----------
    before_variant : str
        XML between RequestID and CommandVariant.
    in_header : str
        XML before RequestID.
    size : int
        Bytes the message is filled up to, by a body like a long schedule.
    """
    p = prefix
    xmlns = f"xmlns:{p[:-1]}" if p else "xmlns"
    reference = ".".join(srv.split(".")[:2]) if reference is None else reference
    start = (
        f'{declaration}<{p}Request {xmlns}="{namespace}" schemaVersion="{version}">\n'
        f"  <{p}Header>\n{in_header}"
        f"    <{p}RequestID>{user}:{target}:{counter}</{p}RequestID>\n{before_variant}"
        f"    <{p}CommandVariant>{variant}</{p}CommandVariant>\n"
        f"    <{p}ServiceReference>{reference}</{p}ServiceReference>\n"
        f"    <{p}ServiceReferenceVariant>{srv}</{p}ServiceReferenceVariant>\n"
        f"  </{p}Header>\n  <{p}Body><{p}ReadSomething>"
    )
    end = f"</{p}ReadSomething></{p}Body>\n</{p}Request>"
    row = f"<{p}ReadDate>2026-11-23T09:00:00.00Z</{p}ReadDate>\n"
    rows = max(0, size - len(start) - len(end)) // len(row)
    body = row * rows
    filling = max(0, size - len(start) - len(body) - len(end))
    return (start + body + " " * filling + end).encode()
