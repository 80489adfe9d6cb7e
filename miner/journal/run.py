"""A run as the journal holds it, of a trial or of a confirming test: encoded and decoded here alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trainer.judging.runs import ReplayRun
from trainer.statistics import curve
from trainer.statistics.comparison import Arm

if TYPE_CHECKING:
    from trainer.measurement.run import Run

LossCurve = tuple[tuple[float, float], ...]  # (seconds, loss in nats), what the script printed


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a trial.

    `val_bpb` is None without a value; then `failure` is one word ("stopped" by its loss curve, "unfit" for the
    machine's state, else what went wrong) and `detail` a sentence. `log` is its file in the session's folder, `at`
    when it ended, `conditions` are words on the machine's state, `machine` is "" for the session's own, `joules` its
    energy where the machine tells it.
    """

    arm: Arm
    val_bpb: float | None
    failure: str
    detail: str
    seconds: float
    memory_mb: float | None
    log: str = ""
    at: str = ""
    tokens_per_second: float | None = None
    curve: LossCurve = ()
    conditions: tuple[str, ...] = ()
    machine: str = ""
    joules: float | None = None

    @classmethod
    def of(cls, run: Run, conditions: Sequence[str], *, budget_seconds: float, machine: str = "") -> RunRecord:
        """The record of a run that just ended; `budget_seconds` turns the progress in its log into seconds."""
        seen = curve.of_log(run.log)
        return cls(
            run.arm,
            run.val_bpb,
            run.failure,
            run.told,
            run.seconds,
            run.memory_mb,
            tokens_per_second=seen.tokens_per_second,
            curve=tuple((round(p.progress * budget_seconds, 2), round(p.loss, 5)) for p in seen.points),
            conditions=tuple(conditions),
            machine=machine,
            joules=None if run.joules is None else round(run.joules, 1),
        )

    @classmethod
    def decode(cls, event: Mapping[str, Any]) -> RunRecord:
        """The run in a journal's event. Fields that older journals lack have defaults, others are ignored; KeyError,
        TypeError or ValueError if it does not fit."""
        return cls(
            Arm(event["arm"]),
            _number(event["val_bpb"]),
            str(event["failure"]),
            str(event["detail"]),
            float(event["seconds"]),
            _number(event["memory_mb"]),
            str(event["log"]),
            str(event["at"]),
            _number(event.get("tokens_per_second")),
            tuple((float(seconds), float(loss)) for seconds, loss in event.get("curve", ())),
            tuple(str(word) for word in event.get("conditions", ())),
            str(event.get("machine", "")),
            _number(event.get("joules")),
        )

    def encode(self) -> dict[str, Any]:
        """Its fields as JSON values, but for `at`, which is the event's."""
        fields = asdict(self)
        del fields["at"]
        return {**fields, "arm": self.arm.value}

    def as_run(self) -> Run:
        """What a comparison needs of it: a run without its log."""
        from trainer.measurement.run import Run

        return Run(self.arm, self.val_bpb, self.failure, self.detail, self.seconds, self.memory_mb, b"")


@dataclass(frozen=True, slots=True)
class ConfirmingRun:
    """One run of a confirming test, as a verifier would attest to it, and when it was recorded."""

    at: str
    run: ReplayRun

    @classmethod
    def decode(cls, event: Mapping[str, Any]) -> ConfirmingRun:
        """The run in a journal's event; KeyError or TypeError if it does not fit."""
        return cls(str(event["at"]), ReplayRun.from_json(event["run"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
