"""`llm` against a real HTTP server that speaks the chat protocol, well and badly."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from miner.proposers import llm
from miner.proposers.base import Context, ProposerFailed
from miner.proposers.llm import Caps, Llm
from tests.miner.proposers.support import SOURCE, context
from trainer.errors import TrainerError

NEW = SOURCE.replace("EMBED_LR = 0.01", "EMBED_LR = 0.03")
DIFF = "".join(difflib.unified_diff(SOURCE.splitlines(True), NEW.splitlines(True), "a/train.py", "b/train.py"))
KEY = "sk-very-secret-key"


class Server:
    """Answers from `replies`, then the last one again; keeps what was asked."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, dict[str, str], bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.asked.append({"path": self.path, **json.loads(body)})
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                status, headers, content = reply
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def says(self, text: str, *, reason: str = "stop", usage: object = None) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        usage = {"prompt_tokens": 1000, "completion_tokens": 50} if usage is None else usage
        self.replies.append((200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()))

    def fails(self, status: int, text: str = "no", **headers: str) -> None:
        self.replies.append((status, headers, text.encode()))


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def client(
    server: Server, caps: Caps | None = None, said: list[str] | None = None, key: str = "", seconds: float = 20.0
) -> Llm:
    heard = said if said is not None else []
    environment = {"ARMLX_LLM_KEY": key} if key else {}
    return Llm(server.url, "tiny", caps or Caps(), heard.append, environment=environment, pause=0.01, seconds=seconds)


def fenced(text: str, language: str = "python") -> str:
    return f"HYPOTHESIS: a higher rate\n\n```{language}\n{text.rstrip()}\n```\nThat is all.\n"


@pytest.mark.parametrize(
    "answer",
    [
        fenced(NEW),
        fenced(DIFF, "diff"),
        fenced(DIFF[DIFF.index("@@") :], ""),
        "<think>first ```python\nx = 1\n``` no</think>\n" + fenced(NEW),
        fenced(NEW).replace("\n", "\r\n"),
        fenced(NEW).replace("```", "~~~~"),
    ],
)
def test_whole_files_and_diffs(server: Server, tmp_path: Path, answer: str) -> None:
    server.says(answer)
    candidate = client(server, key=KEY).propose(context(tmp_path))
    assert candidate is not None
    assert candidate.source.rstrip() == NEW.rstrip()
    assert candidate.hypothesis == "a higher rate"
    [asked] = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["model"] == "tiny"
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(asked)
    spent = json.loads((tmp_path / "llm-usage.json").read_text())
    assert spent == {"calls": 1, "prompt_tokens": 1000, "completion_tokens": 50, "dollars": None}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("I would raise the rate.", "0 complete fenced code blocks"),
        (fenced(NEW) + fenced(NEW), "2 complete fenced code blocks"),
        (fenced(SOURCE), "changes nothing"),
        (fenced("# better\n" + SOURCE), "changes nothing"),
        (fenced("def f(:"), "not valid Python"),
        (fenced("--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-nothing\n+x\n", "diff"), "does not apply"),
        (fenced("--- a/prepare.py\n+++ b/prepare.py\n@@ -1 +1 @@\n-a\n+b\n", "diff"), "changes more than train.py"),
    ],
)
def test_a_bad_answer_is_said_back_and_may_be_mended(server: Server, tmp_path: Path, answer: str, words: str) -> None:
    server.says(answer)
    server.says(fenced(NEW))
    assert client(server).propose(context(tmp_path)) is not None
    assert words in server.asked[1]["messages"][-1]["content"]
    server.replies = []
    server.says(answer)
    with pytest.raises(ProposerFailed, match=words):
        client(server).propose(context(tmp_path))
    assert len(server.asked) == 2 + llm.ANSWERS


def test_a_truncated_answer_is_refused(server: Server, tmp_path: Path) -> None:
    server.says("HYPOTHESIS: x\n```python\n" + NEW[: len(NEW) // 2], reason="length")
    with pytest.raises(ProposerFailed, match="0 complete fenced"):
        client(server).propose(context(tmp_path))
    assert "cut off" in server.asked[1]["messages"][1]["content"]


def test_busy_and_failing_servers_are_asked_again(server: Server, tmp_path: Path) -> None:
    server.fails(429, **{"retry-after": "0.05"})
    server.fails(503)
    server.fails(500)
    server.says(fenced(NEW))
    assert client(server).propose(context(tmp_path)) is not None
    assert json.loads((tmp_path / "llm-usage.json").read_text())["calls"] == 3  # who was turned away used nothing


def test_a_server_that_wants_a_long_rest_gets_it_and_others_go_on(server: Server, tmp_path: Path) -> None:
    server.fails(429, **{"retry-after": "3600"})
    with pytest.raises(ProposerFailed) as failed:
        client(server).propose(context(tmp_path))
    assert failed.value.retry_after == 3600
    assert len(server.asked) == 1
    assert json.loads((tmp_path / "llm-usage.json").read_text())["calls"] == 0


def test_a_server_that_stays_busy_fails_within_bounds(server: Server, tmp_path: Path) -> None:
    server.fails(429, f"slow down, {KEY}\x1b[2J", **{"retry-after": "nan"})
    with pytest.raises(ProposerFailed, match=r"answered 429: slow down, \*\*\*\[2J") as failed:
        client(server, key=KEY).propose(context(tmp_path))
    assert KEY not in str(failed.value)
    assert len(server.asked) == llm.TRIES


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (401, b'{"error": "bad key"}'),
        (404, b"nothing here"),
        (302, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"choices": []}'),
        (200, b'{"choices": [{"message": {"content": null}}]}'),
        (200, b"[" * 100_000),
        (200, b" " * (llm.MAX_RESPONSE + 1)),
    ],
)
def test_what_is_no_chat_endpoint_fails_at_once(server: Server, tmp_path: Path, status: int, content: bytes) -> None:
    server.replies.append((status, {"location": server.url} if status == 302 else {}, content))
    with pytest.raises(ProposerFailed):
        client(server, key=KEY).propose(context(tmp_path))
    assert len(server.asked) == 1


def test_no_server_at_all(server: Server, tmp_path: Path) -> None:
    absent = Llm("http://127.0.0.1:9", "tiny", Caps(), print, environment={}, pause=0.001)
    with pytest.raises(ProposerFailed, match="did not answer"):
        absent.propose(context(tmp_path))


def test_the_call_cap_holds_across_restarts(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    server.says("nothing of use")
    with pytest.raises(ProposerFailed):
        client(server, Caps(calls=4)).propose(context(tmp_path))
    assert client(server, Caps(calls=4), said).propose(context(tmp_path)) is None
    assert client(server, Caps(calls=4), said).propose(context(tmp_path)) is None
    assert len(server.asked) == 4
    assert "--llm-max-calls 4" in said[-1]


def test_the_token_cap_counts_what_the_server_does_not_say(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    server.says(fenced(NEW), usage={"prompt_tokens": -5, "completion_tokens": "many"})
    assert client(server, Caps(tokens=20_000), said).propose(context(tmp_path)) is not None
    spent = json.loads((tmp_path / "llm-usage.json").read_text())
    assert spent["prompt_tokens"] > len(SOURCE) // 4
    assert spent["completion_tokens"] > len(NEW) // 4
    assert server.asked[0]["max_tokens"] + spent["prompt_tokens"] <= 20_000
    assert client(server, Caps(tokens=20_000), said).propose(context(tmp_path)) is not None or "--llm-max" in said[-1]
    assert client(server, Caps(tokens=9_000), said).propose(context(tmp_path)) is None
    assert "--llm-max-tokens 9000" in said[-1]


@pytest.mark.parametrize(("stated", "dollars"), [({}, 0.007), ({"cost": 0.5}, 0.5)])
def test_what_a_call_costs_is_by_the_price_unless_the_server_states_it(
    server: Server, tmp_path: Path, stated: dict[str, float], dollars: float
) -> None:
    server.says(fenced(NEW), usage={"prompt_tokens": 1000, "completion_tokens": 400, **stated})
    priced = Llm(server.url, "made-up", Caps(), lambda _: None, environment={}, price=(3.0, 10.0))
    assert priced.propose(context(tmp_path)) is not None
    assert json.loads((tmp_path / "llm-usage.json").read_text())["dollars"] == pytest.approx(dollars)


def test_damaged_accounts_do_not_lift_the_cap(server: Server, tmp_path: Path) -> None:
    (tmp_path / "llm-usage.json").write_text('{"calls": "none"}')
    with pytest.raises(ProposerFailed, match="what was spent"):
        client(server, Caps(calls=1)).propose(context(tmp_path))
    assert not server.asked


def test_a_stop_ends_the_pauses(server: Server, tmp_path: Path) -> None:
    server.fails(503, **{"retry-after": "50"})
    seen = context(tmp_path)
    stopping = Context(seen.source, seen.protocol, seen.history, "", 1, tmp_path, stop=lambda: bool(server.asked))
    with pytest.raises(ProposerFailed):
        client(server).propose(stopping)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x/v1", "http://u:p@x/v1", "https://x/v1?key=1", "http://"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(TrainerError, match="--llm-url"):
        Llm(url, "tiny", Caps(), print, environment={})


def test_a_key_is_not_sent_in_the_clear_to_elsewhere() -> None:
    with pytest.raises(TrainerError, match="unencrypted") as refused:
        Llm("http://example.org/v1", "tiny", Caps(), print, environment={"OPENAI_API_KEY": KEY})
    assert KEY not in str(refused.value)
    Llm("https://example.org/v1", "tiny", Caps(), print, environment={"OPENAI_API_KEY": KEY})
