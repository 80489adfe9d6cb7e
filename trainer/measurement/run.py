"""One execution of one arm's code, as everything above the bench sees it."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.measurement.values import Measurement
from trainer.statistics.comparison import Arm


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of one arm's code.

    `val_bpb` is None if `failure` names why (one word) and `detail` says it in a sentence of ours; `said` is what the
    script wrote last, its own word, which is never published. `seconds` is wall time, `memory_mb` the script's own peak
    figure where it prints one, `joules` what this machine's meter counted, if it has one. `measurement` is
    there where the run was measured in the trusted way in this process.
    """

    arm: Arm
    val_bpb: float | None
    failure: str
    detail: str
    seconds: float
    memory_mb: float | None
    log: bytes
    measurement: Measurement | None = None
    said: str = ""
    joules: float | None = None

    @property
    def told(self) -> str:
        """`detail` with the script's last words, for this machine's own screen and journal."""
        return f"{self.detail}: {self.said}" if self.said else self.detail
