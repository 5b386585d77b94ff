"""Users are told once per event and once of its end, of their own figures only, whatever the senders do."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tmm_core.errors import ConfigError
from tmm_core.operations.notify import Notice, Notifier, Templates, start_notifiers
from tmm_core.operations.senders import FileDrop, Smtp, Webhook, folder_name, load_senders, signature

from .conftest import MakeWorld
from .world import NORTH, SOUTH, World, small_config

DAY = 86_400_000


class Memory:
    """A sender that remembers, and fails when it is told to."""

    name = "memory"

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.attempts = 0
        self.broken = False

    def accepts(self, user: str) -> bool:
        return True

    def send(self, notice: Notice) -> None:
        self.attempts += 1
        if self.broken:
            raise OSError("connection refused")
        self.notices.append(notice)


def two_users_throttled(world: World) -> Any:
    """An event in which both Users are throttled, in very different numbers."""
    watcher = world.watch()
    watcher.step()
    world.traffic(6, {(NORTH, "4.1.1"): 300.0, (SOUTH, "4.8.1"): 20.0, (SOUTH, "7.4"): 2.0}, watcher)
    return watcher


def kinds(sender: Memory) -> list[tuple[str, str]]:
    return sorted((notice.user, notice.notice) for notice in sender.notices)


def test_each_user_is_told_once_of_the_beginning_and_once_of_the_end(world: World) -> None:
    watcher, sender = two_users_throttled(world), Memory()
    notifier = Notifier(world.path, sender, watcher.put)
    assert notifier.step(world.at_ms()) == 2
    for _ in range(3):
        world.traffic(1, {(NORTH, "4.1.1"): 300.0}, watcher)
        assert notifier.step(world.at_ms()) == 0
    assert kinds(sender) == [(NORTH, "began"), (SOUTH, "began")]
    world.quiet(20, watcher)
    assert notifier.step(world.at_ms()) == 2
    world.quiet(2, watcher)
    watcher.flush()
    assert kinds(sender) == [(NORTH, "began"), (NORTH, "ended"), (SOUTH, "began"), (SOUTH, "ended")]
    assert world.rows("SELECT count(*), count(DISTINCT event), min(state) FROM notifications") == [
        (4, 1, "sent")
    ]
    # A new process asks the log what has been sent.
    assert Notifier(world.path, Memory(), watcher.put).step(world.at_ms()) == 0
    other = Memory()
    other.name = "another way"
    assert Notifier(world.path, other, watcher.put).step(world.at_ms() + 4 * DAY) == 0, "long past is no news"
    assert Notifier(world.path, other, watcher.put).step(world.at_ms()) == 4


def test_a_restarted_notifier_goes_on_where_the_log_says(world: World) -> None:
    watcher, sender = two_users_throttled(world), Memory()
    Notifier(world.path, sender, watcher.put).step(world.at_ms())
    world.traffic(1, {(NORTH, "4.1.1"): 300.0}, watcher)
    assert Notifier(world.path, sender, watcher.put).step(world.at_ms()) == 0


def test_the_figures_are_the_users_own(world: World) -> None:
    watcher, sender = two_users_throttled(world), Memory()
    world.quiet(20, watcher)
    watcher.flush()
    Notifier(world.path, sender, watcher.put).step(world.at_ms())
    counts = world.mechanism.snapshot(world.now).counts
    slots = {NORTH: world.mechanism.user(NORTH), SOUTH: world.mechanism.user(SOUTH)}
    for notice in sender.notices:
        if notice.notice == "ended":
            mine = counts[slots[notice.user]]
            assert notice.counts["throttled"] == mine[:, 0].sum() == sum(notice.by_srv.values())
            assert notice.duration_s > 5
    south = next(n for n in sender.notices if (n.user, n.notice) == (SOUTH, "ended"))
    assert set(south.by_srv) == {"4.8.1"} and south.allocation == 20.0


def test_nothing_of_other_users_is_in_a_notice(world: World) -> None:
    watcher, sender = two_users_throttled(world), Memory()
    world.quiet(20, watcher)
    watcher.flush()
    Notifier(world.path, sender, watcher.put).step(world.at_ms())
    counts = world.mechanism.snapshot(world.now).counts
    for notice in sender.notices:
        other = SOUTH if notice.user == NORTH else NORTH
        theirs = counts[world.mechanism.user(other)]
        foreign = {str(int(theirs[:, 0].sum())), f"{int(theirs[:, 0].sum()):,}", f"{int(theirs.sum()):,}"}
        for text in (notice.text(), notice.json()):
            assert other not in text
            assert not foreign & set(text.replace('"', " ").split()), f"{foreign} in {text}"
    assert counts[:, :, 0].sum() > 500


def test_a_sender_that_fails_is_tried_again_later_and_later(world: World) -> None:
    watcher, sender = two_users_throttled(world), Memory()
    sender.broken = True
    notifier = Notifier(world.path, sender, watcher.put, jitter=lambda: 0.0)
    start = world.at_ms()
    tried: list[int] = []
    for second in range(200):
        before = sender.attempts
        notifier.step(start + second * 1000)
        if sender.attempts > before:
            tried.append(second)
    # 5, 10, 20, 40, 80 seconds after each other.
    assert tried == [0, 5, 15, 35, 75, 155]
    sender.broken = False
    assert notifier.step(start + 1000 * 400) == 2
    world.quiet(2, watcher)
    assert world.rows("SELECT DISTINCT attempts FROM notifications") == [(7,)]


def test_after_a_day_a_notice_is_given_up_and_that_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    watcher, sender = two_users_throttled(world), Memory()
    sender.broken = True
    notifier = Notifier(world.path, sender, watcher.put, jitter=lambda: 1.0)
    start = world.at_ms()
    for minute in range(0, 26 * 60, 10):
        notifier.step(start + minute * 60_000)
    world.quiet(2, watcher)
    rows = world.rows("SELECT DISTINCT state, detail FROM notifications")
    assert rows == [("given-up", "OSError: connection refused")]
    attempts = sender.attempts
    notifier.step(start + 27 * 3_600_000)
    assert sender.attempts == attempts
    assert "is given up" in caplog.text


def test_a_sender_that_hangs_delays_nobody(world: World) -> None:
    hang, entered = threading.Event(), threading.Event()

    class Hanging(Memory):
        name = "hanging"

        def send(self, notice: Notice) -> None:
            entered.set()
            hang.wait(30)

    watcher = two_users_throttled(world)
    sender = Memory()
    now = world.at_ms()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tmm_core.operations.notify.time.time_ns", lambda: now * 1_000_000)
        threads = start_notifiers(world.path, [Hanging(), sender], watcher.put, period_s=0.01)
        try:
            assert entered.wait(10)
            for _ in range(1000):
                if len(sender.notices) == 2:
                    break
                threads[1]._stopping.wait(0.01)
            world.overload(3, watcher)
            assert len(sender.notices) == 2
        finally:
            hang.set()
            for thread in threads:
                thread.stop()
    world.quiet(2, watcher)
    watcher.flush()
    world.assert_log_equals_engine()


def test_in_observe_mode_nobody_is_told(make_world: MakeWorld) -> None:
    world = make_world(config=small_config(mode="observe"))
    watcher, sender = two_users_throttled(world), Memory()
    assert Notifier(world.path, sender, watcher.put).step(world.at_ms()) == 0


def notice(**changes: Any) -> Notice:
    values: dict[str, Any] = {
        "user": NORTH, "event": "block-1/7", "notice": "ended", "began": "2026-11-25T12:00:00.123Z",
        "ended": "2026-11-25T12:10:00.000Z", "duration_s": 599.9, "allocation": 30.0,
        "first_throttled": "2026-11-25T12:00:01.000Z", "last_throttled": "2026-11-25T12:09:00.000Z",
        "counts": {"throttled": 1234, "spare": 10, "within": 20, "priority": 5, "throttled_seconds": 540},
        "by_srv": {"4.1.1": 1000, "4.8.1": 234},
    }  # fmt: skip
    return Notice(**{**values, **changes})


def test_the_text_says_what_happened_and_what_to_do() -> None:
    text = notice().text()
    assert notice().subject() == "Traffic management has ended: 1,234 of your Service Requests were throttled"
    for part in (
        "2026-11-25 12:00:00",
        "after 10 min",
        "1,269",
        "35 were admitted",
        "4.8.1",
        "were not processed",
    ):
        assert part in text, part
    began = notice(notice="began", ended="").text()
    assert "Retry-After" in began and "$" not in began + text


def test_a_file_is_dropped_whole_and_where_only_its_user_looks(tmp_path: Path) -> None:
    drop = FileDrop(tmp_path)
    drop.send(notice())
    drop.send(notice())
    drop.send(notice(user="../../etc"))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 4, files
    assert all(not path.startswith(".") and path.count("/") == 1 for path in files)
    text = next(path for path in files if path.startswith("Northern-Energy-") and path.endswith(".json"))
    assert json.loads((tmp_path / text).read_text())["service_requests"]["throttled"] == 1234
    assert folder_name("a b") != folder_name("a-b"), "two Users never share a folder"
    assert folder_name("..").isalnum()


class _Hook(BaseHTTPRequestHandler):
    answers: list[int]
    got: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((dict(self.headers), body))
        self.send_response(self.answers.pop(0) if self.answers else 200)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hook(*answers: int) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    handler = type("Hook", (_Hook,), {"answers": list(answers), "got": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tmm", handler.got  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_is_signed_and_can_be_told_from_a_repetition() -> None:
    with hook() as (address, got):
        sender = Webhook({NORTH: address}, {NORTH: "s3cret"}, now_s=lambda: 1_764_547_200)
        sender.send(notice())
    headers, body = got[0]
    expected = hmac.new(b"s3cret", b"1764547200." + body, hashlib.sha256).hexdigest()
    assert (
        headers["Tmm-Signature"] == f"t=1764547200,v1={expected}" == signature("s3cret", 1_764_547_200, body)
    )
    assert headers["Idempotency-Key"] == "block-1/7/ended"
    assert json.loads(body)["user"] == NORTH
    assert sender.accepts(NORTH) and not sender.accepts(SOUTH)


@pytest.mark.parametrize("status", [302, 307, 400, 404, 500, 503])
def test_a_webhook_that_does_not_answer_2xx_has_failed(status: int) -> None:
    with hook(status) as (address, got):
        with pytest.raises(OSError, match=f"answered {status}"):
            Webhook({NORTH: address}, {NORTH: "s"}).send(notice())
        assert len(got) == 1, "a redirection is not followed"


def test_a_webhook_that_is_not_there_has_failed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        Webhook({NORTH: f"http://127.0.0.1:{port}/"}, {NORTH: "s"}).send(notice())


def test_a_webhook_without_encryption_or_secret_is_refused() -> None:
    with pytest.raises(ConfigError) as wrong:
        Webhook({NORTH: "http://example.com/", SOUTH: "https://example.com/"}, {NORTH: "s"})
    assert [mistake.field for mistake in wrong.value.mistakes] == [NORTH, SOUTH]


def _smtp_server(server: socket.socket, got: list[str]) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rwb") as file:
        file.write(b"220 test\r\n")
        file.flush()
        data = False
        for line in file:
            text = line.decode().rstrip("\r\n")
            got.append(text)
            if data:
                data = text != "."
                if data:
                    continue
            if text.upper().startswith("EHLO"):
                answer = b"250-test\r\n250 8BITMIME\r\n"
            elif text.upper() == "DATA":
                data, answer = True, b"354 go\r\n"
            elif text.upper() == "QUIT":
                file.write(b"221 bye\r\n")
                file.flush()
                return
            else:
                answer = b"250 ok\r\n"
            file.write(answer)
            file.flush()


def test_a_mail_is_sent_to_the_users_own_addresses() -> None:
    got: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_smtp_server, args=(server, got))
        thread.start()
        sender = Smtp(
            "127.0.0.1", "toc@dcc.example", {NORTH: ("ops@north.example",)}, server.getsockname()[1]
        )
        sender.send(notice())
        thread.join(10)
    # Commands may be in either case, and Python's have been in both.
    assert "rcpt to:<ops@north.example>" in [line.lower() for line in got]
    message = message_from_string(
        "\n".join(got[got.index("data") + 1 : got.index(".")]), policy=policy.default
    )
    assert message["Subject"].strip() == notice().subject() and message["To"] == "ops@north.example"
    text, attached = message.iter_parts()
    assert "1,234 were throttled" in text.get_content()
    assert json.loads(attached.get_content())["user"] == NORTH
    assert sender.accepts(NORTH) and not sender.accepts(SOUTH)


def test_a_name_cannot_forge_a_header_or_a_line() -> None:
    evil = notice(user="North\r\nBcc: all@example.com\u202e")
    assert "\r" not in evil.text() and "\u202e" not in evil.text()
    assert not any(line.startswith("Bcc:") for line in evil.text().splitlines())
    assert json.loads(evil.json())["user"] == evil.user and evil.json().isascii()


def test_templates_can_be_replaced_and_are_checked(tmp_path: Path) -> None:
    (tmp_path / "began.txt").write_text("Subject: $user, please wait\n\nsince $began for $$0\n")
    templates = Templates.load(tmp_path)
    text = notice(notice="began", templates=templates).text()
    assert text == "Subject: Northern Energy, please wait\n\nsince 2026-11-25 12:00:00 for $0\n"
    assert notice(templates=templates).text() == notice().text(), "the other one is as it comes"
    (tmp_path / "began.txt").write_text("$users and $nobody\n")
    with pytest.raises(ConfigError) as wrong:
        Templates.load(tmp_path)
    assert len(wrong.value.mistakes) == 2 and "$nobody, $users" in str(wrong.value)


def hook_at(url: str) -> str:
    return f'[webhook.N]\nurl = "{url}"\nsecret_env = "NORTH_SECRET"\n'


def mail_to(recipients: str, more: str = "port = 25") -> str:
    return (
        f'[smtp]\nhost = "mail.example"\nsender = "a@b"\n{more}\n'.replace("port = 25\n", "")
        + f"[smtp.recipients]\nS = {recipients}\n"
    )


@pytest.mark.parametrize("text", [b"Subject: zz\xe9\n", None])
def test_templates_that_cannot_be_read_are_a_mistake(tmp_path: Path, text: bytes | None) -> None:
    folder = tmp_path / "texts"
    if text is not None:
        folder.mkdir()
        (folder / "began.txt").write_bytes(text)
    with pytest.raises(ConfigError, match="is not UTF-8" if text else "is no folder"):
        Templates.load(folder)


def test_a_folder_without_a_template_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "begun.txt").write_text("Subject: misspelt\n")
    with pytest.raises(ConfigError, match=r"neither began\.txt nor ended\.txt"):
        Templates.load(tmp_path)


def test_senders_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORTH_SECRET", "s3cret")
    file = tmp_path / "notify.toml"
    file.write_text(
        f'[file]\nfolder = "notices"\n[webhook."{NORTH}"]\nurl = "https://n.example/"\nsecret_env = "NORTH_SECRET"\n'
        f'[smtp]\nhost = "localhost"\nsender = "a@b.example"\n[smtp.recipients]\n"{SOUTH}" = ["o@s.example"]\n'
    )
    drop, web, mail = load_senders(file)
    assert (drop.name, web.accepts(NORTH), web.accepts(SOUTH), mail.accepts(SOUTH)) == (
        "file",
        True,
        False,
        True,
    )
    assert "s3cret" not in repr(web)
    for text, fault in [
        ("[pigeon]\n", r"notify\.toml:1:1: \[pigeon\] is no sender"),
        ("[file]\n", r"notify\.toml:1:1: folder is missing"),
        ('[webhook.N]\nurl = "https://n.example/"\nsecret_env = "NO_SUCH"\n', r"toml:3:14: .* no secret"),
        ('[webhook.N]\nurl = "ftp://n"\nsecret_env = "NORTH_SECRET"\n', r"toml:2:7: .* an https address"),
        ("[file\n", r"notify\.toml:1:6: is not TOML"),
        ("webhook = 3\n", r"toml:1:11: is not of the form"),
        (hook_at("https://[n.example/"), r"toml:2:7: .* expected an https address"),
        (hook_at("https:///"), r"toml:2:7: .* expected an https address"),
        (hook_at("https://n.example:99999/"), r"toml:2:7: .* expected an https address"),
        (mail_to('"o@s.example"'), r"toml:5:5: recipients of 'S': 'o@s.example', expected a list"),
        (mail_to("[]"), r"toml:5:5: recipients of 'S': \[\], expected a list"),
        (mail_to("[7]"), r"toml:5:5: recipients of 'S': \[7\], expected a list"),
        (mail_to('["o@s"]', 'port = "25"'), r"toml:4:\d+: port '25', expected 1 to 65535"),
        (mail_to('["o@s"]', "prot = 25"), r"toml:4:1: unknown key 'prot'"),
        (mail_to('["o@s"]', 'user = "u"\npassword_env = "NO_SUCH"'), r"toml:5:\d+: .*NO_SUCH.* no password"),
        ('[file]\nfolder = "a"\nfoldr = "b"\n', r"toml:3:1: unknown key 'foldr', expected folder"),
        ("", r"names no sender, expected \[file\], \[webhook\] or \[smtp\]"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=fault):
            load_senders(file)
