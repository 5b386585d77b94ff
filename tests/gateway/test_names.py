"""What the engine keeps of the texts of Users and SRVs: each text is itself, and means what it means elsewhere."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.drive import active_mechanism
from gateway.messages import OTHER_USER, USER
from tmm_core import Config, Decision, Mechanism
from tmm_core.gateway import asgi, wsgi
from tmm_core.gateway.identify import HttpHeader

#: Users by names of all lengths about the one of an EUI-64 and about the longest that is kept, alike but for an end.
LONG = "NorthernEnergyAndWaterSupply-Ltd"
NAMES = [LONG[:length] for length in (1, 2, 7, 8, 9, 15, 16, 17, 22, 23, 24, 25, 32)]
SRVS = ["4.1.1", "4.1", "7.4", "6.15.1", "4.8.1"]


def doors(*, usual: bool) -> tuple[Mechanism, Any, Any]:
    """Return one Mechanism behind both middlewares, which ask every question where `usual` is False."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    # Every other User is throttled always.
    names = {name: 20.0 * (number % 2) for number, name in enumerate([*NAMES, "Quiet Energy"])}
    allocations = {"Flooding Energy": 0.0, **names}
    mechanism = active_mechanism(allocations=allocations, burst_s=600)
    made = (asgi.TrafficManagement(app, mechanism, HttpHeader()),
            wsgi.TrafficManagement(wsgi_app, mechanism, HttpHeader()))  # fmt: skip
    if not usual:
        for each in made:
            each._usual = each._desk.reception(frozenset(), None)
    return mechanism, *made


def ask(middleware: Any, user: bytes, srv: bytes, more: Any = ()) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"no DUIS"}

    headers = [(b"tmm-user", user), (b"tmm-srv", srv), *more]
    with suppress(StopIteration):
        middleware({"type": "http", "method": "POST", "headers": headers}, receive, send).send(None)
    return int(sent[0]["status"])


def ask_wsgi(middleware: Any, user: str, srv: str) -> int:
    started: list[str] = []
    environ = {"REQUEST_METHOD": "POST", "HTTP_TMM_USER": user, "HTTP_TMM_SRV": srv, "wsgi.input": BytesIO()}
    middleware(environ, lambda status, headers: started.append(status))
    return int(started[0].split()[0])


def damaged(text: bytes, how: str, at: int) -> bytes:
    at %= len(text)
    return {
        "none": text,
        "lower": text.lower(),
        "upper": text.upper(),
        "one letter lower": text[:at] + text[at : at + 1].lower() + text[at + 1 :],
        "underscores": text.replace(b"-", b"_"),
        "no hyphens": text.replace(b"-", b""),
        "cut": text[:at],
        "longer": text + text[: at + 1],
        "space behind": text + b" ",
        "zero behind": text + b"\0",
        "zero before": b"\0" + text,
        "zeros for it": b"\0" * len(text),
        "another byte": text[:at] + bytes([255 - text[at]]) + text[at + 1 :],
        "highest bit": text[:at] + bytes([text[at] ^ 128]) + text[at + 1 :],
    }[how]


HOW = ["none", "lower", "upper", "one letter lower", "underscores", "no hyphens", "cut", "longer", "space behind",
       "zero behind", "zero before", "zeros for it", "another byte", "highest bit"]  # fmt: skip
texts = st.builds(
    damaged,
    st.sampled_from([*NAMES, USER, OTHER_USER]).map(str.encode),
    st.sampled_from(HOW),
    st.integers(0, 40),
)
srv_texts = st.builds(damaged, st.sampled_from(SRVS).map(str.encode), st.sampled_from(HOW), st.integers(0, 9))
twice = st.sampled_from([(), (b"tmm-user",), (b"tmm-srv",), (b"tmm-use",), (b"tmm-users",)])


@given(requests=st.lists(st.tuples(texts, srv_texts, twice), max_size=12))
@example(requests=[(USER.encode(), srv, ()) for srv in (b"7.4", b"\x007.4", b"7.4\0", b"4.1.1", b"\0\0\0")])
@example(requests=[(user, b"4.1.1", ()) for user in (b"No", b"No\0", b"\0No", b"N", b"\0N", b"N\0")])
@example(requests=[(name.encode(), b"4.1.1", ()) for name in NAMES])
def test_every_text_means_what_it_means_with_every_question_asked(requests: list[Any]) -> None:
    (one, *quick), (other, *slow) = (doors(usual=usual) for usual in (True, False))
    for user, srv, names in requests * 2:  # the second time Users and SRVs are known
        more = [(name, b"x") for name in names]
        assert ask(quick[0], user, srv, more) == ask(slow[0], user, srv, more)
        environ = user.decode("latin-1"), srv.decode("latin-1")
        assert ask_wsgi(quick[1], *environ) == ask_wsgi(slow[1], *environ)
    assert (one.snapshot().counts == other.snapshot().counts).all()
    assert [each.counts for each in quick] == [each.counts for each in slow]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_length_is_decided_at_once_when_it_is_known(name: str) -> None:
    mechanism, middleware, _ = doors(usual=True)
    throttled = NAMES.index(name) % 2 == 0
    assert ask(middleware, name.encode(), b"4.1.1") == (503 if throttled else 200)
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(b"tmm-user", name.encode()), (b"tmm-srv", b"4.1.1")],
    }
    verdict = middleware._usual.ask(scope)
    if throttled:
        assert (verdict[0] > 0, verdict[1]) == (True, name)
    else:
        assert verdict is True
    row = mechanism.snapshot().users.index(name)
    decided = mechanism.snapshot().counts[row].sum(axis=0)
    assert decided[Decision.THROTTLED if throttled else Decision.WITHIN_ALLOCATION] == decided.sum() == 2


def spellings(name: str, number: int, first: int = 0) -> list[str]:
    """Return so many; the first of them differ only from the character `first` on."""
    letters = [at for at, letter in enumerate(name) if letter != "-"]
    letters.sort(key=lambda at: (at < first, at))
    found = []
    for bits in range(number):
        lower = {at for place, at in enumerate(letters) if bits >> place & 1}
        found.append("".join(letter.lower() if at in lower else letter for at, letter in enumerate(name)))
    return found


@pytest.mark.parametrize(("at", "other"), [(0, 3), (8, 12), (16, 19)], ids=["beginning", "middle", "end"])
def test_more_spellings_than_are_kept_are_all_decided_and_take_no_more_memory(at: int, other: int) -> None:
    # Two Users whose identifiers differ in one character, where their spellings do: what is kept is full, so these lie
    # side by side.
    quiet = "AB-CD-EF-AB-CD-EF-AB-CD"
    flooding = quiet[:other] + "F" + quiet[other + 1 :]
    mechanism, middleware, _ = doors(usual=True)
    before = mechanism.snapshot().counts.sum(axis=(0, 1))
    allocations = {"Quiet Energy": 8e5, "Flooding Energy": 0.0}
    user_ids = {quiet: "Quiet Energy", flooding: "Flooding Energy"}
    mechanism.apply(
        Config(
            1e6, 9e5, allocations=allocations, user_ids=user_ids, sharing="none", hold_s=3_600, burst_s=600
        )
    )
    usual = middleware._usual
    own = len([each for each in gc.get_referents(usual) if type(each) is dict])
    for pair in zip(spellings(quiet, 4_500, at), spellings(flooding, 4_500, at), strict=True):
        for spelling, verdict in zip(pair, (True, tuple), strict=True):
            middleware._desk.decide(spelling, "4.1.1")
            headers = [(b"tmm-user", spelling.encode()), (b"tmm-srv", b"4.1.1")]
            for _ in range(2):
                said = usual.ask({"type": "http", "method": "POST", "headers": headers})
                assert said is verdict or type(said) is verdict
    decided = mechanism.snapshot().counts.sum(axis=(0, 1)) - before
    assert decided[Decision.WITHIN_ALLOCATION] == decided[Decision.THROTTLED] == 13_500 == decided.sum() / 2
    # The two dictionaries it was given, and none of its own: what it keeps lies in a table of one size.
    assert own == len([each for each in gc.get_referents(usual) if type(each) is dict]) == 2


def test_threads_that_put_down_the_same_texts_at_once_count_every_request() -> None:
    name = "AB-CD-EF-AB-CD-EF-AB-CD"
    mechanism, middleware, _ = doors(usual=True)
    mechanism.apply(Config(1e6, 9e5, allocations={"Quiet Energy": 8e5}, user_ids={name: "Quiet Energy"}))
    usual, wrong = middleware._usual, []
    scopes = []
    for spelling in spellings(name, 500):
        middleware._desk._gate(spelling)
        headers = [(b"tmm-user", spelling.encode()), (b"tmm-srv", b"4.1.1")]
        scopes.append({"type": "http", "method": "POST", "headers": headers})
    middleware._desk._number("4.1.1")
    before = mechanism.snapshot().counts.sum()
    together = threading.Barrier(4)

    def run() -> None:
        together.wait(20)
        wrong.extend(scope for scope in scopes * 4 if usual.ask(scope) is not True)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert mechanism.snapshot().counts.sum() - before == 4 * 4 * 500
