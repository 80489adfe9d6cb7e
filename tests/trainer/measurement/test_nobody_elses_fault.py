"""Whatever comes out of a candidate's process is the candidate's doing, never this host's failure.

A host's failure releases a proposal, so a candidate that reaches one at will turns a coming rejection into another
try. Here a made-up sandbox ends in every way a job can end and gives every kind of result.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest

from trainer.machine.environment import Environment
from trainer.measurement import Failure, Measurer, Phase, Reference, ScoringText, facts
from trainer.measurement.facts import HarnessFacts
from trainer.measurement.values import MOST_BPB, MeasurementPolicy
from trainer.project import protocol
from trainer.sandbox import Job, JobEnd, JobOutcome, Message, UntrustedResult

ROOT = Path(__file__).resolve().parents[3]
LENGTH, VOCABULARY = 8, 16
ROWS = (np.arange(4 * (LENGTH + 1), dtype=np.int32) % VOCABULARY).reshape(4, LENGTH + 1)
ENDS: Sequence[JobEnd] = get_args(JobEnd)
LAST = ("finished", "killed_late")
WORDS = [
    b'{"event": "frozen"}',
    b'{"event": "not_exportable", "detail": "\\ud800 [/bold] \\u001b[2J"}',
    b'{"event": "bad_output", "detail": {"a": [1]}}',
    b'{"event": ["frozen"]}',
    b"\xff\xfe",
    b"[" * 4000,
    b"1" * 4096,
]


class MadeUpJob:
    """A job that is over. `result` is the file that it leaves, None for one that must not be read."""

    def __init__(
        self, kind: JobEnd, code: int = 0, words: Sequence[bytes] = (), result: bytes | None = b"", output: bytes = b""
    ) -> None:
        self.words, self.data = words, result
        last = Message(1.0, words[-1]) if words and kind in LAST else None
        self.outcome = JobOutcome(kind, code, 2.0, output, False, last)

    def __enter__(self) -> MadeUpJob:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def over(self, _: float) -> bool:
        return True

    def output_since(self, start: int, most: int) -> tuple[bytes, int]:
        return self.outcome.output[start:][-most:], len(self.outcome.output)

    def kill(self) -> JobOutcome:
        return self.outcome

    wait = kill

    def messages(self) -> tuple[Message, ...]:
        return tuple(Message(1.0, word) for word in self.words)

    def result(self, name: str, most: int) -> bytes:
        if self.data is None or len(self.data) > most:
            raise UntrustedResult(f"The result {name!r} should be a readable plain file.")
        return self.data


class MadeUpSandbox:
    """Gives the jobs it was given, in order."""

    name = "made up"

    def __init__(self) -> None:
        self.jobs: list[MadeUpJob] = []

    def start(self, *_: object, **__: object) -> Job:
        return cast("Job", self.jobs.pop(0))


@pytest.fixture
def box() -> MadeUpSandbox:
    return MadeUpSandbox()


@pytest.fixture
def measurer(box: MadeUpSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measurer:
    known = HarnessFacts("", 6.0, "val.parquet", ROWS, np.ones(VOCABULARY, np.int32))
    monkeypatch.setattr(facts, "harness_facts", lambda *_: known)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data").write_bytes(b"x")
    rules = protocol.parse((ROOT / "configs" / "smoke" / "protocol.json").read_bytes())
    snapshot = {"prepare.py": b"pass\n", "train.py": b"pass\n"}
    here = Environment.running()
    return Measurer(box, here, snapshot, tmp_path / "cache", rules, tmp_path / "work", policy=MeasurementPolicy())


def claims(value: float, places: int = 4 * LENGTH) -> bytes:
    return np.full(places, value, "<f4").tobytes()


LOGITS = np.zeros((4, VOCABULARY), "<f4").tobytes()
UNIFORM = float(np.log(VOCABULARY))


def test_no_way_to_end_training_is_the_hosts_fault(measurer: Measurer, box: MadeUpSandbox) -> None:
    seen = set()
    endings = itertools.product(ENDS, (0, 1, 139), ((), *([word] for word in WORDS)), (None, b"graph"))
    for kind, code, words, result in endings:
        output = b"oh\r\n[/red]\x1b[2J" + b"\n" * 3000 + b"\xff" * 70_000
        box.jobs = [MadeUpJob(kind, code, words, result, output), MadeUpJob("exited", 1)]
        found = measurer.measure({"train.py": b"x"}, grace=20.0)
        failure = found.findings[0].failure
        assert failure not in (Failure.HOST, Failure.STOPPED), (kind, code, words, result)
        assert found.val_bpb is None
        seen.add(failure)
        measurer.discard(found)
    assert seen >= {Failure.CRASH, Failure.NO_EVALUATION, Failure.OVER_BUDGET, Failure.OVER_RESOURCES}


RESULTS: dict[str, tuple[bytes | None, Failure | None]] = {
    "as it should be": (claims(UNIFORM), None),
    "none": (None, Failure.BAD_OUTPUT),
    "empty": (b"", Failure.BAD_OUTPUT),
    "short": (claims(1.0)[:-1], Failure.BAD_OUTPUT),
    "long": (claims(1.0) + b"x", Failure.BAD_OUTPUT),
    "nan": (claims(float("nan")), Failure.NON_FINITE),
    "infinite": (claims(float("inf")), Failure.NON_FINITE),
    "negative": (claims(-1.0), Failure.BAD_OUTPUT),
    "all zero": (claims(0.0), Failure.BAD_OUTPUT),
    "a little below zero": (claims(-9e-6), Failure.BAD_OUTPUT),
    "absurd": (claims(2.0**20), Failure.OUT_OF_RANGE),
    "as large as can be": (claims(3.4e38), Failure.OUT_OF_RANGE),
    "just absurd": (claims(MOST_BPB), Failure.OUT_OF_RANGE),
    "too good": (claims(1e-30), Failure.NON_CAUSAL),
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("held", [False, True])
def test_no_claim_is_the_hosts_fault(name: str, held: bool, measurer: Measurer, box: MadeUpSandbox) -> None:
    data, failure = RESULTS[name]
    box.jobs = [MadeUpJob("exited", 0, (), data), MadeUpJob("exited", 0, (), LOGITS)]
    reference = Reference(np.full(4 * LENGTH, 1.0, np.float32), {Phase.CLAIM: 1.0, Phase.PROBES: 1.0}) if held else None
    (score,) = measurer.score(Path("graph"), [ScoringText(ROWS, reference)])
    assert [finding.failure for finding in score.findings] == ([failure] if failure else [])
    assert score.val_bpb is None if failure else 0 < score.val_bpb < MOST_BPB  # type: ignore[operator]


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("place", [0, 1])
def test_two_texts_are_claimed_and_probed_together(
    name: str, place: int, measurer: Measurer, box: MadeUpSandbox
) -> None:
    """What is wrong with the second text is its own; what is wrong with the first, or with a process, is both's."""
    data, failure = RESULTS[name]
    parts = [claims(UNIFORM), claims(UNIFORM)]
    parts[place] = data or b""
    shown = 1 + (failure in (None, Failure.NON_CAUSAL) or place == 0)  # texts that are probed
    box.jobs = [MadeUpJob("exited", 0, (), b"".join(parts)), MadeUpJob("exited", 0, (), LOGITS * shown)]
    first, second = measurer.score(Path("graph"), [ScoringText(ROWS), ScoringText(ROWS)])
    found = [[finding.failure for finding in score.findings] for score in (first, second)]
    broken = name in ("none", "empty", "short", "long")  # results of another size: nothing is known of either
    assert found[1] == ([failure] if failure else [])
    assert found[0] == ([failure] if failure and (place == 0 or broken) else [])
    assert first.seconds.keys() >= {Phase.CLAIM}
    assert second.seconds == {}


def test_no_way_to_end_a_worker_is_the_hosts_fault(measurer: Measurer, box: MadeUpSandbox) -> None:
    logits: dict[str, Any] = {
        "none": None,
        "nan": np.full((4, VOCABULARY), np.nan, "<f4").tobytes(),
        "vast": np.full((4, VOCABULARY), 3.4e38, "<f4").tobytes(),
        "mixed": np.tile(np.array([3.4e38, -3.4e38], "<f4"), 2 * VOCABULARY).tobytes(),
        "good": LOGITS,
    }
    for phase, kind, code, words, name in itertools.product(
        (Phase.CLAIM, Phase.PROBES), ENDS, (0, 1, 137), ((), *([word] for word in WORDS)), logits
    ):
        good = MadeUpJob("exited", 0, (), claims(UNIFORM))
        bad = MadeUpJob(kind, code, words, logits[name] if phase is Phase.PROBES else claims(UNIFORM))
        box.jobs = [bad, MadeUpJob("exited", 0, (), LOGITS)] if phase is Phase.CLAIM else [good, bad]
        (score,) = measurer.score(Path("graph"), [ScoringText(ROWS)])
        assert not {finding.failure for finding in score.findings} & {Failure.HOST, Failure.STOPPED}
        json.dumps([finding.detail for finding in score.findings]).encode()  # as an attestation holds it
        assert score.findings or (kind, code) == ("exited", 0)


@pytest.mark.parametrize(
    ("seconds", "limit"), [(None, 600.0), (0.0, 30.0), (0.9, 30.0), (10.0, 80.0), (70.0, 560.0), (400.0, 600.0)]
)
def test_evaluation_is_bounded_by_the_incumbents_own(seconds: float | None, limit: float) -> None:
    policy, losses = MeasurementPolicy(), np.ones(4, np.float32)
    reference = None if seconds is None else Reference(losses, {Phase.CLAIM: seconds})
    assert policy.evaluation_limit(Phase.CLAIM, reference) == limit
    assert policy.evaluation_limit(Phase.PROBES, reference) == 600.0
