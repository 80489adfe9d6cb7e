"""What a graph claims on one text: whether it can be, which positions are probed, and whether these agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trainer.measurement import scoring
from trainer.measurement.outcomes import MeasurementFailed
from trainer.measurement.scoring import Losses
from trainer.measurement.values import (
    MOST_BPB,
    Failure,
    MeasurementPolicy,
    Phase,
    Probe,
    ProbeReport,
    RunFinding,
    Score,
    ScoringText,
)

_NEGATIVE: Final = -1e-5  # no cross-entropy is below zero, but for the rounding of float32


@dataclass(slots=True)
class TextClaim:
    """Of one text, filled in as it goes; `scored` bool (N, T): targets that stand for bytes."""

    text: ScoringText
    scored: npt.NDArray[np.bool_]
    losses: Losses | None = None
    claimed: float | None = None
    report: ProbeReport | None = None
    finding: RunFinding | None = None

    def take(self, losses: Losses, token_bytes: npt.NDArray[np.int32]) -> None:
        """Look at the claim: finite, no loss below zero, and a value that a model can have."""
        try:
            require_losses(losses)
            self.losses = losses
            self.claimed = scoring.bits_per_byte(losses, self.text.rows[:, 1:], token_bytes)
            _require_plausible(self.claimed)
        except MeasurementFailed as failed:
            self.finding = failed.finding

    def draw(self, random: np.random.Generator, policy: MeasurementPolicy) -> scoring.Draw:
        """The positions to probe."""
        return scoring.draw(
            self._claims,
            self._incumbent,
            self.scored,
            self.text.probes,
            random,
            uniform_share=policy.uniform_share,
            confidence=policy.confidence,
        )

    def compare(self, draw: scoring.Draw, logits: Losses, policy: MeasurementPolicy) -> None:
        """The claim with the logits, float32 (K, V), of the drawn positions."""
        if not np.isfinite(logits).all():
            self.finding = RunFinding(Failure.NON_FINITE, Phase.PROBES, "a logit is not finite")
            return
        row, cut = draw.positions.T
        proven = scoring.cross_entropy(logits, self.text.rows[row, cut + 1])
        said = self._claims[row, cut].astype(np.float64)
        delta, gain, incumbent = proven - said, draw.gain_bound, self._incumbent
        if gain is not None and incumbent is not None:
            gain /= float(incumbent[self.scored].sum(dtype=np.float64))
        probes = zip(row.tolist(), cut.tolist(), said.tolist(), proven.tolist(), strict=True)
        self.report = ProbeReport(
            tuple(Probe(*probe) for probe in probes),
            float(delta.mean()),
            float(delta[np.abs(delta).argmax()]),
            gain,
            draw.share_bound,
        )
        self.finding = judge(self.report, policy)

    @property
    def _claims(self) -> Losses:
        assert self.losses is not None  # only a claim that stands is probed
        return self.losses

    @property
    def _incumbent(self) -> Losses | None:
        return None if self.text.reference is None else self.text.reference.losses.reshape(self.scored.shape)

    def score(self, first: RunFinding | None, seconds: dict[Phase, float]) -> Score:
        """`first` is what was found on the first of the texts."""
        found = first or self.finding
        flat = None if self.losses is None else self.losses.reshape(-1)
        value = None if found else self.claimed
        return Score(value, self.claimed, flat, self.report, (found,) if found else (), seconds)


def require_losses(losses: Losses) -> None:
    """MeasurementFailed unless all of the claimed cross-entropies, float32 (N, T), are finite and none is negative."""
    if not np.isfinite(losses).all():
        row, position = np.argwhere(~np.isfinite(losses))[0]
        detail = f"the loss at row {row}, position {position} is not finite"
        raise MeasurementFailed(Failure.NON_FINITE, Phase.CLAIM, detail)
    if losses.min() < _NEGATIVE:
        detail = f"a cross-entropy of {losses.min():.6f} is below zero"
        raise MeasurementFailed(Failure.BAD_OUTPUT, Phase.CLAIM, detail)


def _require_plausible(claimed: float) -> None:
    """MeasurementFailed for a value that is no model's: such a run has no value, whatever else it is."""
    if claimed >= MOST_BPB:
        detail = f"{claimed:.4g} bits per byte are no improvement on anything"
        raise MeasurementFailed(Failure.OUT_OF_RANGE, Phase.CLAIM, detail)
    if not claimed > 0:
        raise MeasurementFailed(Failure.BAD_OUTPUT, Phase.CLAIM, f"{claimed:.4g} bits per byte cannot be")


def judge(report: ProbeReport, policy: MeasurementPolicy) -> RunFinding | None:
    """Whether the probes agree with the claim: each within the tolerance, their mean within the drift."""
    wrong = [probe for probe in report.probes if not abs(probe.proven - probe.claimed) <= policy.tolerance]
    if wrong:
        worst = max(wrong, key=lambda probe: abs(probe.proven - probe.claimed))
        detail = (
            f"{len(wrong)} of {len(report.probes)} claims change when the tokens that follow are replaced; at row "
            f"{worst.row}, position {worst.cut}, {worst.claimed:.4f} nats were claimed and {worst.proven:.4f} proven"
        )
    elif not abs(report.mean) <= policy.drift:
        detail = f"the claims are off by {report.mean:+.6f} nats on average when the tokens that follow are replaced"
    else:
        return None
    return RunFinding(Failure.NON_CAUSAL, Phase.PROBES, detail)
