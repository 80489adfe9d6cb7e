"""A run as it is recorded: in an attestation, and in the journal of a confirming test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.measurement.run import Run
from trainer.statistics.comparison import Arm


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One run as an attestation holds it; bpb values are None where there is none, times in seconds."""

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

    def as_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    def as_run(self) -> Run:
        """What the comparison needs of it."""
        return Run(Arm(self.arm), self.val_bpb, self.failure, self.detail, self.seconds, None, b"")
