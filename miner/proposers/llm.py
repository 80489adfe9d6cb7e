"""`llm`: candidates from a chat endpoint of the OpenAI kind: mlx_lm.server, Ollama, vLLM or a hosted one.

The model answers with a unified diff or the whole train.py in one fenced block. An unusable answer is
returned to it with the reason, a few times. Busy and failing servers are retried with growing, random pauses. What was
spent, in calls and tokens, is on disk before and after each call and ends the proposer at its cap. The key comes
from the environment, goes to the endpoint over TLS or to this machine only, and is in no file, log or message.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from common.loopback import LOOPBACK
from common.text import multiline, printable
from miner.proposers import diffs, prompt, usage
from miner.proposers.base import SCRIPT, Candidate, Context, ProposerFailed
from miner.proposers.usage import Usage
from trainer.errors import InvalidBundle, TrainerError
from trainer.project import hyperparameters

if TYPE_CHECKING:
    from common.http import HttpReply

KEYS = ("ARMLX_LLM_KEY", "OPENAI_API_KEY")
MAX_RESPONSE = 4 * 1024 * 1024  # bytes
MAX_ANSWER_TOKENS = 16_384  # asked for in one answer, at most
ANSWERS = 3  # answers to one trial until it fails
TRIES = 5  # requests for one answer
_LONGEST_PAUSE = 60.0  # seconds
_BUSY = 429
_AGAIN = frozenset({408, 409, 425, _BUSY})
_BLOCK = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
_ANSWER = (
    f"Answer with exactly one fenced code block that holds either a unified diff of {SCRIPT} (its hunks with exact"
    f" context lines), or blocks of <<<<<<< SEARCH, =======, >>>>>>> REPLACE, or the whole new {SCRIPT}. No other code"
    " block."
)


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that all sessions in one folder may spend together; None is no limit."""

    calls: int | None = None
    tokens: int | None = None


class _NoAnswer(ProposerFailed):
    """An endpoint that may answer when it is asked again."""


class Llm:
    """`url` is the API's base such as http://127.0.0.1:8080/v1, `price` in dollars for a million tokens of prompt and
    of answer, where it is known; `pause` the first wait after a failure, seconds."""

    name = "llm"

    def __init__(
        self,
        url: str,
        model: str,
        caps: Caps,
        say: Callable[[str], None],
        *,
        environment: Mapping[str, str] | None = None,
        price: tuple[float, float] | None = None,
        pause: float = 2.0,
        seconds: float = 600.0,
    ) -> None:
        self._url = _endpoint(url)
        self._price = price
        self._model, self._caps, self._say, self._pause, self._seconds = model, caps, say, pause, seconds
        variables = os.environ if environment is None else environment
        self._key = next((key for name in KEYS if (key := variables.get(name, "").strip())), "")
        if self._key and urlsplit(self._url).scheme != "https" and not is_local(self._url):
            raise TrainerError(
                f"{printable(url)} would receive the key in {' or '.join(KEYS)} unencrypted.",
                "Use https, or unset the key.",
            )

    def propose(self, context: Context) -> Candidate | None:
        """A candidate from the model, or None once a cap is reached; ProposerFailed without a usable answer."""
        spent = usage.read(context.folder, self.name)
        messages = [{"role": "user", "content": prompt.build(context, _ANSWER, with_source=True)}]
        why = ""
        for _ in range(ANSWERS):
            if context.stop():
                return None
            room = self._room(spent, messages)
            if room is None:
                return None
            text = self._ask(messages, room, spent, context)
            try:
                source = read_answer(text, context)
                return Candidate(source, prompt.hypothesis(_without_blocks(text)))
            except ProposerFailed as failure:
                why = failure.problem
            again = f"This answer cannot be used: {why} Answer again. {_ANSWER}"
            messages = [
                messages[0],
                {"role": "assistant", "content": text[-40_000:]},
                {"role": "user", "content": again},
            ]
        raise ProposerFailed(f"None of {ANSWERS} answers was usable; the last: {why}", "Try another --llm-model.")

    def _room(self, spent: Usage, messages: list[dict[str, str]]) -> int | None:
        """Tokens that the next answer may have, or None if a cap forbids the call."""
        if self._caps.calls is not None and spent.calls >= self._caps.calls:
            self._say(f"  llm: reached --llm-max-calls {self._caps.calls}")
            return None
        if self._caps.tokens is None:
            return MAX_ANSWER_TOKENS
        room = self._caps.tokens - spent.tokens - _estimate(messages)
        if room < 256:
            self._say(f"  llm: {spent.tokens} tokens used, too close to --llm-max-tokens {self._caps.tokens}")
            return None
        return min(room, MAX_ANSWER_TOKENS)

    def _ask(self, messages: list[dict[str, str]], room: int, spent: Usage, context: Context) -> str:
        """One answer's text, retrying while the server is busy or failing; ProposerFailed if it stays so."""
        body = {"model": self._model, "messages": messages, "max_tokens": room, "stream": False}
        rng, why, wait = random.Random(), "", 0.0
        for attempt in range(TRIES):
            if attempt and (self._caps.calls is not None and spent.calls >= self._caps.calls):
                break
            spent.calls += 1
            usage.write(context.folder, self.name, spent)
            wait = 0.0
            try:
                reply = self._post(body, context)
            except _NoAnswer as error:
                why = error.problem
            else:
                if reply.status == 200:
                    return self._read(reply.body, spent, context, messages)
                why = f"{self._url} answered {reply.status}: {self._shown(reply.body)}."
                if reply.status not in _AGAIN and reply.status < 500:
                    raise ProposerFailed(why, f"Check --llm-url, --llm-model and {' or '.join(KEYS)}.")
                wait = reply.retry_after
                if reply.status == _BUSY:  # it did no work, so it costs nothing of the cap
                    spent.calls -= 1
                    usage.write(context.folder, self.name, spent)
                if wait > _LONGEST_PAUSE:
                    break  # others go on meanwhile
            if attempt + 1 < TRIES:
                backoff = self._pause * 2**attempt * rng.uniform(0.5, 1.5)
                if not _sleep(min(_LONGEST_PAUSE, max(backoff, wait)), context.stop):
                    break
        raise ProposerFailed(why, "Check that the endpoint is up and within its limits.", retry_after=wait)

    def _post(self, body: Mapping[str, Any], context: Context) -> HttpReply:
        """One request within the time that is left; the key is with it, so no redirect is followed."""
        from common.http import HttpClient

        seconds = min(self._seconds, max(5.0, context.seconds_left or self._seconds))
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        with HttpClient(unreachable=_NoAnswer, unusable=ProposerFailed, limit=seconds) as client:
            return client.call("POST", self._url, json.dumps(body).encode(), headers=headers, max_bytes=MAX_RESPONSE)

    def _read(self, content: bytes, spent: Usage, context: Context, messages: list[dict[str, str]]) -> str:
        """The answer's text; its tokens are counted, by estimate where the server does not say."""
        try:
            document = json.loads(content)
            choice = document["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
            if not isinstance(text, str):
                raise TypeError("no text")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            spent.prompt_tokens += _estimate(messages)
            usage.write(context.folder, self.name, spent)
            raise ProposerFailed(
                f"{self._url} is not a chat endpoint: {self._shown(content)}.", "Check --llm-url."
            ) from None
        said = document.get("usage")
        said = said if isinstance(said, dict) else {}
        asked, answered = usage.count(said.get("prompt_tokens")), usage.count(said.get("completion_tokens"))
        asked = _estimate(messages) if asked is None else asked
        answered = _tokens(text) if answered is None else answered
        spent.prompt_tokens += asked
        spent.completion_tokens += answered
        dollars = usage.cost(said.get("cost"))  # as OpenRouter states it
        if dollars is None and self._price is not None:
            dollars = (asked * self._price[0] + answered * self._price[1]) / 1e6
        spent.pays(dollars)
        usage.write(context.folder, self.name, spent)
        # A truncated block has no end, so it is refused as an answer without one; this says why.
        return text if reason != "length" else f"{text}\n[the answer was cut off here: it was too long]"

    def _shown(self, content: bytes) -> str:
        text = content[:2000].decode(errors="replace")
        return printable(text.replace(self._key, "***") if self._key else text)


def is_local(url: str) -> bool:
    """Whether the endpoint is on this machine."""
    return urlsplit(url).hostname in LOOPBACK


def read_answer(text: str, context: Context) -> str:
    """The new train.py in an answer; ProposerFailed if there is none, or it changes nothing or was tried."""
    blocks = [match["body"] for match in _BLOCK.finditer(_visible(text))]
    if len(blocks) != 1:
        raise ProposerFailed(f"The answer has {len(blocks)} complete fenced code blocks, expected one.")
    body = blocks[0]
    source = diffs.apply(context.source, body) if diffs.is_diff(body) else body
    try:
        fingerprint = hyperparameters.fingerprint(source)
    except InvalidBundle as error:
        raise ProposerFailed(f"The new {SCRIPT} is not valid Python: {error.problem}") from None
    if fingerprint == hyperparameters.fingerprint(context.source):
        raise ProposerFailed("The answer changes nothing but comments or formatting.")
    if fingerprint in context.known():
        raise ProposerFailed("This change was already tried.")
    return source


def _visible(text: str) -> str:
    """The answer after its thinking, for models that think aloud; line ends as \\n."""
    return text.rpartition("</think>")[2].replace("\r\n", "\n")


def _without_blocks(text: str) -> str:
    return _BLOCK.sub("", _visible(multiline(text)))


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise TrainerError(
            f"--llm-url {printable(url)!r} is not the base URL of an API.",
            "Use, for example, http://127.0.0.1:8080/v1.",
        )
    base = url.rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def _tokens(text: str) -> int:
    """An estimate from above: three characters a token is few for code."""
    return len(text) // 3 + 1


def _estimate(messages: list[dict[str, str]]) -> int:
    return sum(_tokens(message["content"]) + 8 for message in messages)


def _sleep(seconds: float, stop: Callable[[], bool]) -> bool:
    """Sleep unless told to stop; whether it slept through."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if stop():
            return False
        time.sleep(min(0.2, left))
    return not stop()
