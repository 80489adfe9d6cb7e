"""The protocol bundle: what a project lets a miner change, how a run is started and what it is judged by.

`parse` turns the bytes of a protocol.json into frozen values. Its rules:

- The bytes come from outside: at most 256 KiB of UTF-8 JSON, no duplicate keys, no NaN or infinity.
- What is relied on is typed and bounded; a refusal names the place, for example
  `execution.stopCondition.trainingSecondsBudget`. What measuring can do without is left out where it has a fault, and
  `Protocol.notes` says so: other clients' schema asks for less.
- What it does not know stays: `Protocol.raw` is the whole document and `dump` writes it back.
- The command is a plain argument list, never a shell line; paths and globs stay inside the bundle.
- A metric's regular expression has one group that captures a decimal number and cannot run away: `common.pattern`
  bounds the ways it can backtrack, and `metrics` applies it to single short lines.

Facts: the live ARMLX bundle (configs/armlx/protocol.json); the optional `miningLoop` and
`measurement.minScoreImprovementBips` as existing OpenResearch clients read them.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, NoReturn, cast

from common import strict
from common.pattern import MAX_PATTERN, compile_safely
from trainer.errors import InvalidProtocol

Direction = Literal["minimize", "maximize"]

MAX_BYTES: Final = 256 * 1024
WEEK: Final = 7 * 24 * 3600.0
MAX_ENTRIES: Final = 1024  # of a list
_TIMEOUT_BUDGETS: Final = 3  # training budgets until a run is stopped, as in the live project


@dataclass(frozen=True, slots=True)
class Metric:
    """A number in the summary block; `pattern` is applied to one line, its first group is the value."""

    name: str
    direction: Direction
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Execution:
    """How a run is started: `argv` in `cwd`, relative to the bundle's root ("." is the root); seconds."""

    argv: tuple[str, ...]
    cwd: str
    training_seconds: float
    hard_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class MutableSurface:
    """Globs over bundle paths; what `forbidden` or `harness` names is never mutable."""

    allowed: tuple[str, ...]
    forbidden: tuple[str, ...]
    harness: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MiningLoop:
    """Limits the project asks of a mining session; None is no limit."""

    max_trials: int | None = None
    max_session_seconds: float | None = None
    max_consecutive_non_improvements: int | None = None


@dataclass(frozen=True, slots=True)
class MlTrain:
    """The harness's sizes in tokens; None leaves the harness's own default."""

    eval_tokens: int | None = None
    sequence_length: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """A validated protocol; `raw` is the whole document (never alter it), `digest` its bytes' SHA-256.

    `notes` are sentences on what was not as expected and does not matter to a measurement.
    """

    bundle_id: str
    purpose: str
    offline: bool
    surface: MutableSurface
    execution: Execution
    primary: Metric
    secondary: tuple[Metric, ...]
    min_improvement_bips: int | None
    mining_loop: MiningLoop
    ml_train: MlTrain
    raw: Mapping[str, Any]
    digest: str
    notes: tuple[str, ...] = ()

    def margin(self, metric: float) -> float:
        """The smallest improvement of `metric` that the project wants, in the metric's unit."""
        return abs(metric) * (self.min_improvement_bips or 0) / 10_000


def parse(data: bytes) -> Protocol:
    """The protocol in `data`, or InvalidProtocol naming the path that is wrong."""
    root = _At("", _load(data))
    root["schemaKind"].one_of("protocol")
    if not root["protocolVersion"].text(16).startswith("1."):
        root["protocolVersion"].refuse('a version "1.x"')
    meta, execution, measurement = root["meta"], root["execution"], root["measurement"]
    surface, stop, loop = root["mutableSurface"], execution["stopCondition"], root["miningLoop"]
    network, purpose = root["environment"]["constraints"]["networkPolicy"].value, meta["purposeStatement"].value
    sizes = root["archetypeExtensions"]["ml_train"]
    stop["type"].one_of("wall_clock")
    budget = stop["trainingSecondsBudget"].number(0.1, WEEK)
    timeout = execution["hardTimeoutSeconds"].number(0.1, 2 * WEEK)
    digest, notes = sha256(data).hexdigest(), []
    if timeout < budget:
        notes.append(
            f"Its hard timeout of {timeout:g} s is below its training budget of {budget:g} s: "
            f"{_TIMEOUT_BUDGETS * budget:g} s apply."
        )
        timeout = _TIMEOUT_BUDGETS * budget
    try:
        bundle_id = meta["protocolBundleId"].text(200)
    except InvalidProtocol:
        bundle_id = digest[:32]
        notes.append(f"It has no usable meta.protocolBundleId: {bundle_id}, from its SHA-256, stands for it.")
    secondary = []
    for at in measurement["secondaryMetrics"].items():
        try:
            secondary.append(_metric(at))
        except InvalidProtocol as error:
            notes.append(f"A secondary metric is left out: {error.problem}")
    return Protocol(
        bundle_id=bundle_id,
        purpose=purpose[:4096] if isinstance(purpose, str) else "",
        offline=network != "full",
        surface=MutableSurface(
            allowed=tuple(glob.inside() for glob in surface["allowedGlobs"].items(least=1)),
            forbidden=_closed(surface["forbiddenGlobs"], notes),
            harness=_closed(root["immutableHarness"]["paths"], notes),
        ),
        execution=Execution(
            argv=execution["command"].argv(),
            cwd=execution["cwd"].inside(default="."),
            training_seconds=budget,
            hard_timeout_seconds=timeout,
        ),
        primary=_metric(measurement["primaryMetric"]),
        secondary=tuple(secondary),
        min_improvement_bips=measurement["minScoreImprovementBips"].optional_whole(0, 10_000),
        mining_loop=MiningLoop(
            max_trials=loop["maxTrials"].optional_whole(1, 1_000_000),
            max_session_seconds=loop["maxSessionWallSeconds"].optional_number(0.1, 52 * WEEK),
            max_consecutive_non_improvements=loop["maxConsecutiveNonImprovements"].optional_whole(1, 1_000_000),
        ),
        ml_train=MlTrain(
            eval_tokens=sizes["evalTokens"].optional_whole(1, 2**40),
            sequence_length=sizes["sequenceLength"].optional_whole(2, 2**20),
            vocab_size=sizes["vocabSize"].optional_whole(2, 2**16),
        ),
        raw=cast("Mapping[str, Any]", root.value),
        digest=digest,
        notes=tuple(notes),
    )


def dump(protocol: Protocol) -> bytes:
    """The whole document as indented JSON with a final newline, unknown fields included, in their order."""
    return (json.dumps(protocol.raw, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _load(data: bytes) -> object:
    if len(data) > MAX_BYTES:
        raise InvalidProtocol(f"The protocol has {len(data)} bytes; the limit is {MAX_BYTES}.", "Check the file.")
    try:
        document = json.loads(
            data.decode(), object_pairs_hook=strict.unique_keys, parse_constant=strict.no_number, parse_float=_finite
        )
        json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate could not be written back
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:
        problem = str(error)
    else:
        if isinstance(document, dict):
            return document
        problem = "the document is not an object"
    raise InvalidProtocol(f"The protocol is not valid JSON: {problem}.", "Check the file.")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else strict.no_number(text)


_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class _At:
    """A value and its path; what is absent reads as missing all the way down, until something needs it."""

    path: str
    value: object

    def __getitem__(self, key: str) -> _At:
        path = f"{self.path}.{key}" if self.path else key
        if self.value is _MISSING or self.value is None:
            return _At(path, _MISSING)
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return _At(path, self.value.get(key, _MISSING))

    def refuse(self, expected: str) -> NoReturn:
        found = "nothing" if self.value is _MISSING else json.dumps(self.value)
        found = found if len(found) <= 80 else found[:77] + "..."
        raise InvalidProtocol(
            f"The protocol's {self.path} must be {expected}, found {found}.",
            "Correct protocol.json, or ask the project's owner for a valid one.",
        )

    def items(self, least: int = 0) -> Iterator[_At]:
        """The elements of a list of at most MAX_ENTRIES; a list that may be empty may be absent."""
        found = [] if self.value in (_MISSING, None) and not least else self.value
        if not isinstance(found, list) or not least <= len(found) <= MAX_ENTRIES:
            self.refuse(f"a list of {least} to {MAX_ENTRIES} entries")
        return (_At(f"{self.path}[{index}]", value) for index, value in enumerate(found))

    def text(self, most: int, default: str | None = None) -> str:
        if self.value is _MISSING and default is not None:
            return default
        if not isinstance(self.value, str) or not 1 <= len(self.value) <= most or not self.value.isprintable():
            self.refuse(f"printable text of 1 to {most} characters")
        return self.value

    def one_of(self, *choices: str) -> str:
        if self.value not in choices:
            self.refuse(" or ".join(f'"{choice}"' for choice in choices))
        return str(self.value)

    def number(self, least: float, most: float) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            self.refuse(f"a number from {least:g} to {most:g}")
        return float(value)

    def optional_number(self, least: float, most: float) -> float | None:
        return None if self.value is _MISSING or self.value is None else self.number(least, most)

    def optional_whole(self, least: int, most: int) -> int | None:
        if self.value is _MISSING or self.value is None:
            return None
        if type(self.value) is not int or not least <= self.value <= most:
            self.refuse(f"a whole number from {least} to {most}")
        return self.value

    def inside(self, default: str | None = None) -> str:
        """A relative path or glob that stays inside the bundle, without its leading `./`; "." is the root."""
        text = self.text(255, default)
        while text.startswith("./"):
            text = text[2:] or "."
        if text != "." and ("\\" in text or any(part in ("", ".", "..") for part in text.removesuffix("/").split("/"))):
            self.refuse("a relative path inside the bundle, without empty parts, '.', '..' or backslashes")
        return text

    def argv(self) -> tuple[str, ...]:
        """A plain command; what only a shell understands is refused, since no shell runs it."""
        text = self.text(1024)
        try:
            found = tuple(shlex.split(text))
        except ValueError:
            found = ()
        if not found or len(found) > 64 or set(text) & set("|&;<>()$`\\*?[#~\n"):
            self.refuse("a plain command without shell syntax")
        return found


def _metric(at: _At) -> Metric:
    extract = at["extract"]
    extract["kind"].one_of("regex")
    pattern = extract["pattern"]
    try:
        compiled = compile_safely(pattern.text(MAX_PATTERN))
    except ValueError as error:
        pattern.refuse(f"a regular expression of a bounded kind ({error})")
    return Metric(
        name=at["name"].text(64),
        direction=cast("Direction", at["direction"].one_of("minimize", "maximize")),
        pattern=compiled,
    )


def _closed(at: _At, notes: list[str]) -> tuple[str, ...]:
    """Globs that nothing may change; one that names no path of a bundle can be left out."""
    found = []
    for glob in at.items():
        if isinstance(glob.value, str) and glob.value.startswith("/"):
            notes.append(f"Its {glob.path} names nothing inside the bundle and is left out.")
        else:
            found.append(glob.inside())
    return tuple(found)
