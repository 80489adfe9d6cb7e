"""Notifications against real counterparts: a server that takes a POST, a program, the platforms' own command lines."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from common import notify
from common.notify import Notifier, body, channels, plain, shown

EVENT = {"event": "keep", "trial": 7}
SECRET = "T0/B0/s3cr3t"


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[str, bytes]], list[int]]]:
    """A web hook: its address, what was posted, and the statuses that it answers, 200 where none is left."""
    got: list[tuple[str, bytes]] = []
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Content-Type"], data))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/services/{SECRET}", got, statuses
        server.shutdown()
        thread.join()


def send(*texts: str, command: str | None = None, webhook: str | None = None) -> list[str]:
    """What is said of the delivery of these."""
    said: list[str] = []
    with Notifier(channels(command, webhook, desktop=False), said.append) as notifier:
        for text in texts:
            notifier.tell(text, EVENT)
    return said


def test_a_web_hook_gets_what_slack_and_discord_read(hook: tuple[str, list[tuple[str, bytes]], list[int]]) -> None:
    url, got, _ = hook
    assert send("Found: LR", "Stopped", webhook=url) == []
    assert [json.loads(data)["text"] for _, data in got] == ["Found: LR", "Stopped"]
    kind, data = got[0]
    assert kind == "application/json"
    found = json.loads(data)
    assert found["content"] == "Found: LR"  # Discord
    assert found["allowed_mentions"] == {"parse": []}
    assert found["event"] == EVENT


def test_a_refusal_is_said_once_and_without_the_address(hook: tuple[str, list[tuple[str, bytes]], list[int]]) -> None:
    url, got, statuses = hook
    statuses += [404, 410]
    said = send("a", "b", "c", webhook=url)
    assert said == ["notify_webhook failed (the address answered 404); going on without it"]
    assert len(got) == 3  # a later message is tried all the same


def test_nobody_there_is_said_without_the_address(hook: tuple[str, list[tuple[str, bytes]], list[int]]) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as gone:
        port = gone.server_port
    said = send("a", webhook=f"http://127.0.0.1:{port}/{SECRET}")
    assert said == ["notify_webhook failed (the address did not answer); going on without it"]


def test_a_program_gets_the_event_and_no_shell_sees_the_text(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "hook.py"
    script.write_text(
        f"import os, sys\nopen({str(out)!r}, 'a').write(sys.stdin.read() + os.environ['ARMLX_TEXT'] + chr(10))\n"
    )
    text = "Found: $(touch owned); `id` -> \x1b[31m <!channel>"
    assert send(text, command=f"{sys.executable} {script}") == []
    event, told = out.read_text().splitlines()
    assert told == plain(text) == "Found: $(touch owned); `id` -› [31m ‹!channel›"
    assert json.loads(event) == {**EVENT, "text": told}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program-here --token s3cr3t", "no-such-program-here was not found"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "ended with status 3"),
        ("'unbalanced", "ValueError"),
    ],
)
def test_a_program_that_fails_is_said_without_its_arguments(command: str, why: str) -> None:
    (said,) = send("a", "b", command=command)
    assert why in said
    assert "s3cr3t" not in said


def test_one_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.2)
    (said,) = send("a", command="sh -c 'sleep 600 & sleep 600'")
    assert "sh took more than" in said


def test_one_that_goes_on_in_the_background_is_delivered() -> None:
    assert send("a", command="sh -c 'sleep 15 &'") == []


def test_closing_waits_only_so_long_and_a_full_queue_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "CLOSING", 0.05)
    let_go, seen = threading.Event(), list[str]()

    def stuck(text: str, _: notify.Event) -> None:
        let_go.wait(30)
        seen.append(text)

    notifier = Notifier({"stuck": stuck}, lambda _: None)
    for number in range(notify.WAITING + 50):
        notifier.tell(str(number), EVENT)
    notifier.close()  # the mining goes on, whatever becomes of the rest
    assert seen == []
    let_go.set()


def test_the_desktop_gets_the_text_as_an_argument_never_as_code() -> None:
    text = '" & (do shell script "id") & "'
    mac = shown(text, "darwin")
    assert mac[0] == "osascript"
    assert text in mac
    assert all(text not in part for part in mac if part != text)
    assert shown("--help", "linux")[-3:] == ["--", notify.TITLE, "--help"]


def test_nothing_is_configured_by_default() -> None:
    assert channels(None, None, desktop=False) == {}
    assert set(channels("x", "https://h/x", desktop=True)) == {"notify_command", "notify_webhook", "notify_desktop"}


def test_the_body_is_one_document() -> None:
    assert json.loads(body("a", EVENT))["title"] == notify.TITLE
