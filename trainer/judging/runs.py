"""A run as it is recorded: in an attestation, and in the journal of a confirming test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainer.errors import UNFIT
from trainer.statistics.comparison import Arm

if TYPE_CHECKING:
    from trainer.measurement.run import Run


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One run as an attestation holds it; bpb values are None if there is none, times in seconds.

    `arm` is "candidate", "incumbent" for the best on chain, or the name of a rung below it (`trainer.judging.ladder`).
    bpb values are as measured. `overtime` is what a candidate's training beyond the incumbent's own time is charged:
    the seconds, the snapshot's slope with its error, and the resulting bpb, which `charged` adds. `call_seconds` is how
    long one call of its graph took at most. `holdout_blocks` is
    what each block of the holdout text, the same for all runs, adds to `holdout_bpb`. `conditions` are words on what
    was wrong with the machine at the time; nothing in a run is the candidate's own word.
    """

    arm: str
    val_bpb: float | None
    holdout_bpb: float | None
    train_seconds: float | None
    seconds: float
    failure: str
    detail: str
    code_sha256: str
    graph_sha256: str | None
    probes: dict[str, Any] | None
    holdout_probes: dict[str, Any] | None
    overtime: dict[str, float] | None = None
    holdout_blocks: tuple[float, ...] | None = None
    conditions: tuple[str, ...] = ()
    call_seconds: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the run failed by itself. One that was left out because the machine was unfit did not."""
        return self.failure not in ("", UNFIT)

    @property
    def excused(self) -> bool:
        """Whether the run has no value because of this machine: it was unfit, it failed, or Metal refused memory."""
        return self.failure in (UNFIT, "host", "refused_memory")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ReplayRun:
        """The inverse of `as_json`; KeyError if a field is missing."""
        later = ("overtime", "holdout_blocks", "conditions", "call_seconds")
        fields = {name: document[name] for name in cls.__slots__ if name not in later}
        blocks = document.get("holdout_blocks")
        return cls(
            **fields,
            overtime=document.get("overtime"),
            holdout_blocks=None if blocks is None else tuple(float(block) for block in blocks),
            conditions=tuple(str(words) for words in document.get("conditions", ())),
            call_seconds=document.get("call_seconds"),
        )

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        blocks = None if self.holdout_blocks is None else list(self.holdout_blocks)
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {"holdout_blocks": blocks, "conditions": list(self.conditions)}

    def charged(self, *, on_holdout: bool = False) -> float | None:
        """The value that counts, in bpb: what was measured, and the charge for time beyond the incumbent's."""
        value = self.holdout_bpb if on_holdout else self.val_bpb
        return None if value is None else value + (self.overtime["bpb"] if self.overtime else 0.0)

    def as_run(self) -> Run:
        """What the comparison needs of it."""
        from trainer.measurement.run import Run  # with all that measures, which reading a record does not need

        return Run(Arm(self.arm), self.charged(), self.failure, self.detail, self.seconds, None, b"")


def against(runs: Sequence[ReplayRun], reference: str) -> list[ReplayRun]:
    """The runs of a comparison with the arm `reference`, which stand as the incumbent's, and no others."""
    return [
        run if run.arm == Arm.CANDIDATE.value else replace(run, arm=Arm.INCUMBENT.value)
        for run in runs
        if run.arm in (Arm.CANDIDATE.value, reference)
    ]


def values(runs: Sequence[ReplayRun], arm: Arm | str, *, on_holdout: bool = False) -> list[float]:
    """The values of an arm or a rung that count, in the order they were measured."""
    name = arm.value if isinstance(arm, Arm) else arm
    found = [run.charged(on_holdout=on_holdout) for run in runs if run.arm == name]
    return [value for value in found if value is not None]


def said_unfit(runs: Sequence[ReplayRun]) -> str:
    """What this machine first said against itself beside a run that was not the candidate's; "" for nothing.

    A candidate that leaves heat or load behind may bring that about for the runs after its own. All it gets is a
    release: its stake stays where it is, and the next check is one more look.
    """
    return next((words for run in runs if run.arm != Arm.CANDIDATE.value for words in run.conditions), "")
