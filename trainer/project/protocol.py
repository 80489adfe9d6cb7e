"""The protocol bundle: what a project lets a miner change, how a run is started and what it is judged by.

`parse` turns the bytes of a protocol.json into frozen values. Its rules:

- The bytes come from outside: at most 256 KiB of UTF-8 JSON, no duplicate keys, no NaN or infinity.
- What this project relies on is typed and bounded; a refusal names the place, for example
  `execution.stopCondition.trainingSecondsBudget`.
- What it does not know stays: `Protocol.raw` is the whole document and `dump` writes it back.
- The command is a plain argument list, never a shell line; paths and globs stay inside the bundle.
- A metric's regular expression has one group that captures a decimal number and cannot run away: `_guard`
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
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as sre  # type: ignore[attr-defined]
from typing import Any, Final, Literal, NoReturn, cast

from common import strict
from trainer.errors import InvalidProtocol

Direction = Literal["minimize", "maximize"]

MAX_BYTES: Final = 256 * 1024
MAX_PATTERN: Final = 200
WEEK: Final = 7 * 24 * 3600.0


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
    exclude_compilation: bool


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
class Provenance:
    """Where a session's results go and what its branch is called."""

    results_path: str = "results.tsv"
    results_columns: tuple[str, ...] = ("commit", "val_bpb", "memory_gb", "status", "description")
    branch_pattern: str = "autoresearch/<tag>"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A validated protocol; `raw` is the whole document (never alter it), `digest` its bytes' SHA-256."""

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
    provenance: Provenance
    raw: Mapping[str, Any]
    digest: str

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
    network = root["environment"]["constraints"]["networkPolicy"]
    sizes = root["archetypeExtensions"]["ml_train"]
    bips = measurement["minScoreImprovementBips"]
    stop["type"].one_of("wall_clock")
    budget = stop["trainingSecondsBudget"].number(0.1, WEEK)
    timeout = execution["hardTimeoutSeconds"].number(0.1, WEEK)
    if timeout < budget:
        execution["hardTimeoutSeconds"].refuse(f"at least the training budget of {budget:g} seconds")
    return Protocol(
        bundle_id=meta["protocolBundleId"].text(200),
        purpose=meta["purposeStatement"].text(4096, default=""),
        offline=network.text(64, default="offline") == "offline",
        surface=MutableSurface(
            allowed=tuple(glob.inside() for glob in surface["allowedGlobs"].items(least=1)),
            forbidden=tuple(glob.inside() for glob in surface["forbiddenGlobs"].items()),
            harness=tuple(path.inside() for path in root["immutableHarness"]["paths"].items()),
        ),
        execution=Execution(
            argv=execution["command"].argv(),
            cwd=execution["cwd"].inside(default="."),
            training_seconds=budget,
            hard_timeout_seconds=timeout,
            exclude_compilation=stop["excludeCompilationFromBudget"].flag(default=False),
        ),
        primary=_metric(measurement["primaryMetric"]),
        secondary=tuple(_metric(at) for at in measurement["secondaryMetrics"].items()),
        min_improvement_bips=bips.optional_whole(0, 10_000),
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
        provenance=_provenance(root["provenance"]),
        raw=cast("Mapping[str, Any]", root.value),
        digest=sha256(data).hexdigest(),
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
        if self.value is _MISSING:
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
        """The elements of a list of at most 64; a list that may be empty may be absent."""
        found = [] if self.value is _MISSING and not least else self.value
        if not isinstance(found, list) or not least <= len(found) <= 64:
            self.refuse(f"a list of {least} to 64 entries")
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

    def flag(self, default: bool) -> bool:
        if self.value is _MISSING:
            return default
        if not isinstance(self.value, bool):
            self.refuse("true or false")
        return self.value

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
        """A relative path or glob that stays inside the bundle; "." is the root."""
        text = self.text(255, default)
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
    text = pattern.text(MAX_PATTERN)
    try:
        _guard(text)
        compiled = re.compile(text, re.ASCII)
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        pattern.refuse(f"a regular expression of a bounded kind ({error})")
    if compiled.groups < 1:
        pattern.refuse("a regular expression whose first group captures the value")
    return Metric(
        name=at["name"].text(64),
        direction=cast("Direction", at["direction"].one_of("minimize", "maximize")),
        pattern=compiled,
    )


def _provenance(at: _At) -> Provenance:
    default = Provenance()
    results, branch = at["resultsLog"], at["gitWorkflow"]["branchPattern"]
    pattern = branch.text(100, default.branch_pattern)
    if pattern.count("<tag>") != 1:
        branch.refuse("a branch name with <tag> in it once")
    columns = tuple(column.text(64) for column in results["columns"].items())
    return Provenance(results["path"].inside(default.results_path), columns or default.results_columns, pattern)


# Regular expressions. Python's matcher backtracks, so a pattern from outside can take exponential time. The
# guard counts, per character, the choices that a run of this character can be split over: three repeats (where
# the pattern starts is one, unless `^` says it) and three either-or choices make at most 8 n^3/6 steps on a
# line of n characters, about 0.1 s at 200.

_REPEATS_PER_CHARACTER: Final = 3
_EITHER_OR_PER_CHARACTER: Final = 3
_ALPHABET: Final = tuple(map(chr, range(129)))  # ASCII, and one character that stands for all others
_ALL: Final = frozenset(_ALPHABET)
_SINGLE: Final = frozenset({op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.CATEGORY, op.RANGE})


def _guard(pattern: str) -> None:
    """ValueError if `pattern` could need more than a small polynomial of steps."""
    tree = sre.parse(pattern, re.ASCII)
    if tree.state.flags & ~(re.ASCII | re.MULTILINE):
        raise ValueError("inline flags are not supported")
    repeats: list[frozenset[str]] = [] if len(tree) and tree[0] == (op.AT, op.AT_BEGINNING) else [_ALL]
    choices: list[frozenset[str]] = []
    for kind, size, characters in _choices(tree):
        (repeats if kind == "repeat" else choices).extend([characters] * size)
    for character in _ALPHABET:
        if sum(character in found for found in repeats) > _REPEATS_PER_CHARACTER:
            raise ValueError("too many repeats that can match the same character")
        if sum(character in found for found in choices) > _EITHER_OR_PER_CHARACTER:
            raise ValueError("too many alternatives that can match the same character")


def _choices(tree: Any) -> Iterator[tuple[str, int, frozenset[str]]]:
    """Every choice in the tree: ("repeat" or "either", its weight, the characters it can take)."""
    for code, argument in tree:
        if code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            least, most, body = argument
            if most > 1 and any(_choices(body)):
                raise ValueError("a choice inside a repeat")
            if most == 1 and least == 0:
                yield "either", 1, _characters(body)
            elif least != most:
                yield "repeat", 1, _characters(body)
            yield from _choices(body)
        elif code is op.BRANCH:
            yield "either", len(argument[1]) - 1, frozenset().union(*map(_characters, argument[1]))
            for branch in argument[1]:
                yield from _choices(branch)
        elif code is op.SUBPATTERN:
            _, added, removed, body = argument
            if added or removed:
                raise ValueError("inline flags are not supported")
            yield from _choices(body)
        elif code not in _SINGLE and code is not op.AT:
            raise ValueError(f"{str(code).lower()} is not supported")


def _characters(tree: Any) -> frozenset[str]:
    found: set[str] = set()
    for code, argument in tree:
        if code in _SINGLE:
            found |= _set(code, argument)
        elif code is op.SUBPATTERN:
            found |= _characters(argument[3])
        elif code is op.BRANCH:
            found = found.union(*map(_characters, argument[1]))
        elif code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            found |= _characters(argument[2])
    return frozenset(found)


def _set(code: Any, argument: Any) -> frozenset[str]:
    if code is op.LITERAL:
        return frozenset(chr(min(argument, 128)))
    if code is op.NOT_LITERAL:
        return _ALL - frozenset(chr(argument))
    if code is op.RANGE:
        return frozenset(map(chr, range(min(argument[0], 128), min(argument[1], 128) + 1)))
    if code is op.IN and argument[0][0] is not op.NEGATE:
        return frozenset().union(*(_set(*item) for item in argument))
    return _ALL if code is not op.CATEGORY else _CATEGORIES.get(argument, _ALL)


_CATEGORIES: Final[dict[Any, frozenset[str]]] = {
    category: frozenset(character for character in _ALPHABET if re.match(escape, character, re.ASCII))
    for category, escape in (
        (op.CATEGORY_DIGIT, r"\d"),
        (op.CATEGORY_SPACE, r"\s"),
        (op.CATEGORY_WORD, r"\w"),
        (op.CATEGORY_NOT_DIGIT, r"\D"),
        (op.CATEGORY_NOT_SPACE, r"\S"),
        (op.CATEGORY_NOT_WORD, r"\W"),
    )
}
