"""Fuzz the header reader with atheris: ``make fuzz``, or
``python tests/gateway/fuzz_duis.py -max_total_time=60``.

For any bytes: a header or a DuisError, the same by expat, by the short way and in parts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    # Only here: pytest looks for doctests in this file too, with or without the fuzzer.
    import atheris

    sys.path.insert(0, str(Path(__file__).parents[1]))
    with atheris.instrument_imports(include=["tmm_core.gateway.duis"]):
        import tmm_core.gateway.duis  # noqa: F401 - the first import is the one that is instrumented

from gateway.messages import compose
from tmm_core import DuisError
from tmm_core.gateway import duis

SHORT_WAY = duis._known
HEAD, _, TAIL = compose().partition(b"<sr:RequestID>")


def answer(message: bytes) -> object:
    try:
        return duis.read_header(message)
    except DuisError as error:
        return str(error)


def check(message: bytes) -> None:
    duis._known = lambda part: None
    expected = answer(message)
    duis._known = SHORT_WAY
    if answer(message) != expected:
        raise AssertionError(f"the short way: {answer(message)!r}, expat: {expected!r}, of {message!r}")
    names = duis.known_names(message)
    if names is not None and (isinstance(expected, str) or names != (expected.user_id, expected.srv_code)):
        raise AssertionError(f"what was read before: {names!r}, expat: {expected!r}, of {message!r}")
    reader, found = duis.HeaderReader(), None
    try:
        for at in range(0, len(message), 97):
            found = reader.feed(message[at : at + 97])
        found = reader.feed(b"", last=True)
    except DuisError as error:
        found = str(error)
    if found != expected:
        raise AssertionError(f"in parts: {found!r}, whole: {expected!r}, of {message!r}")


def fuzz(data: bytes) -> None:
    check(data)
    # Where the first bytes are known, the short way is taken.
    check(HEAD + b"<sr:RequestID>" + data)


if __name__ == "__main__":
    duis.read_header(compose())
    # Atheris ends the process without cleaning up: the corpus has one place, or the one named last.
    named = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    corpus = Path(named[0]) if named else Path(tempfile.gettempdir(), "tmm-core-duis-corpus")
    corpus.mkdir(exist_ok=True)
    seeds = [compose(), compose(prefix=""), TAIL, TAIL[: TAIL.index(b"  <sr:Body>")]]
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup(sys.argv if named else [*sys.argv, str(corpus)], fuzz)
    atheris.Fuzz()
