"""What a measurement takes and gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from trainer.measurement.scoring import Losses, Tokens

PROBES = 256  # of one text, where nothing else is said
MOST_BPB = 1e4  # bits per byte; guessing at random costs less than 20


class Failure(StrEnum):
    """Why there is no value. All are the candidate's doing except HOST and STOPPED; the caller decides about a CRASH
    in a worker by whether the incumbent's graph crashes there too, and about memory by what the machines have."""

    CRASH = "crash"  # train.py, or a worker running its graph, ended with an error
    NO_EVALUATION = "no_evaluation"  # train.py ended well without calling evaluate_bpb
    OVER_BUDGET = "over_budget"  # the graph came later than budget plus grace
    OVER_RESOURCES = "over_resources"  # processes, disk, output, or time in a worker
    OUT_OF_MEMORY = "out_of_memory"  # more memory than this machine gives a run; a larger one may have it
    REFUSED_MEMORY = "refused_memory"  # Metal refused it memory, by rules that differ between machines and days
    NON_CAUSAL = "non_causal"  # a claimed loss cannot be reproduced without the tokens that follow
    NON_FINITE = "non_finite"  # a loss or logit is NaN or infinite
    BAD_OUTPUT = "bad_output"  # a result of the wrong form
    OUT_OF_RANGE = "out_of_range"  # a loss that is no model's: at least MOST_BPB
    NOT_EXPORTABLE = "not_exportable"  # the model could not be frozen
    STOPPED = "stopped"  # whoever watched the run's lines ended it (StopRun)
    HOST = "host"  # this machine failed, or its GPU driver ended the process


class Phase(StrEnum):
    """Where a measurement is."""

    TRAINING = "training"
    CLAIM = "claim"
    PROBES = "probes"


Progress = Callable[[Phase, str], None]
"""Called with "" when a phase begins, then with each line train.py prints: the candidate's word, control
characters replaced. It may raise StopRun while the candidate trains, which ends the run with STOPPED."""


@dataclass(frozen=True, slots=True)
class RunFinding:
    """One failure, where it was met, and a sentence on it in words of ours, fit to be published.

    `said` is what the candidate's code wrote last: its word, for this machine's own screen and journal alone.
    """

    failure: Failure
    phase: Phase
    detail: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe: the claim at (row, cut) and what the graph gives there without the future, in nats."""

    row: int
    cut: int
    claimed: float
    proven: float


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """All probes of one claim. `mean` and `worst` are of proven - claimed (worst by size), in nats.

    `gain_bound`: with the policy's confidence, no more of the gain claimed beyond the incumbent is undeserved, as a
    fraction of the incumbent's total loss; None without an incumbent or a gain. `share_bound`: no larger share
    of the scored positions is. See `scoring`.
    """

    probes: tuple[Probe, ...]
    mean: float
    worst: float
    gain_bound: float | None
    share_bound: float


@dataclass(frozen=True, slots=True)
class Reference:
    """The incumbent on the rows on which a candidate is scored: what the candidate is held to.

    `losses` float32 (N * T,), nats, direct the probes to where the candidate claims to be better; `seconds` by phase
    bound how long its evaluation may take.
    """

    losses: Losses
    seconds: Mapping[Phase, float]


@dataclass(frozen=True, slots=True)
class ScoringText:
    """Rows to score a graph on, int32 (N, T + 1): the validation rows, or fresh ones, with as many probes.

    `reference` is the incumbent's `Score.reference` on the same rows.
    """

    rows: Tokens
    reference: Reference | None = None
    probes: int = PROBES


@dataclass(frozen=True, slots=True)
class Score:
    """A graph on rows. `val_bpb` is there when nothing was found; `claimed_bpb` whenever the claim was whole.

    `losses` float32 (N * T,), nats, row by row; `seconds` by phase, the worker's start included, with the first of the
    texts that were scored together.
    """

    val_bpb: float | None
    claimed_bpb: float | None
    losses: Losses | None
    probes: ProbeReport | None
    findings: tuple[RunFinding, ...]
    seconds: dict[Phase, float]

    @property
    def reference(self) -> Reference | None:
        """What a candidate is held to where this is the incumbent; None unless it was scored without a finding."""
        return None if self.val_bpb is None or self.losses is None else Reference(self.losses, self.seconds)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of a candidate and its score. `kind` is "measured" exactly when `val_bpb` is there.

    `train_seconds`: from the start of the process to the word that the graph is ready, by the parent's clock; None
    when no word came. `holdout` is the same graph's score on other text, where some was given. `graph` is the frozen
    model in the measurer's private folder (`Measurer.discard` removes it): never open it with MLX outside a sandbox.
    `log` is what train.py printed, its own word.
    """

    val_bpb: float | None
    score: Score | None
    train_seconds: float | None
    graph: Path | None
    graph_sha256: str | None
    files_sha256: str
    log: str
    findings: tuple[RunFinding, ...]
    seconds: dict[Phase, float]
    holdout: Score | None = None

    @property
    def kind(self) -> str:
        return "failed" if self.val_bpb is None else "measured"

    @property
    def losses(self) -> Losses | None:
        """float32 (N * T,), nats."""
        return None if self.score is None else self.score.losses

    @property
    def reference(self) -> Reference | None:
        """See `Score.reference`."""
        return None if self.score is None else self.score.reference

    @property
    def probes(self) -> ProbeReport | None:
        return None if self.score is None else self.score.probes


def _most_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 8 // 10


@dataclass(frozen=True, slots=True)
class MeasurementPolicy:
    """Limits of a measurement. Nats for `tolerance` (one probe) and `drift` (the mean of all).

    The claim and the probes of a candidate may each take `evaluation_multiple` times the incumbent's seconds, at least
    `evaluation_floor`; `evaluation_seconds` is their bound where there is no incumbent to go by, and above all.
    """

    tolerance: float = 1e-3
    drift: float = 1e-4
    confidence: float = 0.95
    uniform_share: float = 0.25
    evaluation_seconds: float = 600.0
    evaluation_multiple: float = 8.0
    evaluation_floor: float = 30.0
    graph_bytes: int = 512 << 20
    memory_bytes: int = field(default_factory=_most_memory)
    scratch_bytes: int = 2 << 30
    processes: int = 512
    output_bytes: int = 4 << 20

    def evaluation_limit(self, phase: Phase, reference: Reference | None) -> float:
        """Seconds that `phase`, the claim or the probes, may take."""
        if reference is None or phase not in reference.seconds:
            return self.evaluation_seconds
        wanted = max(self.evaluation_floor, self.evaluation_multiple * reference.seconds[phase])
        return min(self.evaluation_seconds, wanted)
