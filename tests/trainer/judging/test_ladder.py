"""Which rung a candidate is judged against, as tables."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.judging.cases import NOISE, failing, replay_run
from trainer.judging.ladder import Footing, Known, Rung, anchored, falls_short, footing, lead, over_snapshot, scatters
from trainer.judging.policy import LadderPolicy
from trainer.judging.runs import ReplayRun
from trainer.statistics.noise import NoiseRecord

TOP, MIDDLE, BOTTOM = Rung("incumbent", 0.3), Rung("proposal 4", 0.2), Rung("snapshot", 0.0)
RUNGS = (TOP, MIDDLE, BOTTOM)
POLICY = LadderPolicy()
NONE = Known()
BASE = 2.5


def of(arm: str, value: float, count: int = 3) -> list[ReplayRun]:
    return [replay_run(arm, value)] * count


SNAPSHOT, AWAKE, ASLEEP = of("snapshot", BASE), of("incumbent", BASE - 0.3, 6), of("incumbent", BASE, 6)
DEAD = [failing("incumbent", "crash")] * 2


@pytest.mark.parametrize(
    ("runs", "known", "reference", "ask"),
    [
        # what holds by what is known of the snapshot costs no run, however old that is
        (AWAKE, Known((2.5, 2.5)), "incumbent", ""),
        (AWAKE, Known((2.5, 2.5), fresh=True), "incumbent", ""),
        # where nothing is known, or it does not fit, the snapshot runs
        (AWAKE, NONE, "", "snapshot"),
        (AWAKE + SNAPSHOT[:2], NONE, "", "snapshot"),
        (AWAKE + SNAPSHOT, NONE, "incumbent", ""),
        (ASLEEP, Known((2.5, 2.5)), "", "snapshot"),
        (ASLEEP, Known((2.5, 2.5, 2.5)), "", "snapshot"),  # of another hour: a prediction, no proof
        (AWAKE, Known((2.2, 2.2)), "", "snapshot"),
        # an incumbent that does not hold what was attested is stepped over, to one that does
        (ASLEEP + SNAPSHOT, NONE, "", "proposal 4"),
        (ASLEEP, Known((2.5, 2.5, 2.5), fresh=True), "", "proposal 4"),
        (ASLEEP + SNAPSHOT + of("proposal 4", 2.3, 2), NONE, "", "proposal 4"),
        (ASLEEP + SNAPSHOT + of("proposal 4", 2.3), NONE, "proposal 4", ""),
        (ASLEEP + SNAPSHOT + of("proposal 4", 2.5), NONE, "snapshot", ""),
        # so is one that crashes, once the snapshot shows that this machine does not
        (DEAD, NONE, "", "snapshot"),
        (DEAD + SNAPSHOT, NONE, "", "proposal 4"),
        (DEAD + SNAPSHOT + [failing("proposal 4", "crash")] * 2, NONE, "snapshot", ""),
        (DEAD + [failing("snapshot", "crash")] * 2, NONE, "", "proposal 4"),
        (DEAD + [failing("snapshot", "crash")] * 2 + [failing("proposal 4", "crash")] * 2, NONE, "snapshot", ""),
        # one that became better is held to nothing
        (of("incumbent", 1.0, 6) + SNAPSHOT, NONE, "incumbent", ""),
    ],
)
def test_footing(runs: list[ReplayRun], known: Known, reference: str, ask: str) -> None:
    found = footing(RUNGS, runs, known, NOISE, POLICY)
    assert (found.reference.arm if found.reference else "", found.ask) == (reference, ask)
    stepped = [rung.arm for rung in RUNGS[: RUNGS.index(found.reference)]] if found.reference else []
    assert all(any(arm in note for note in found.notes) for arm in stepped)


def test_it_always_comes_to_an_end() -> None:
    """Whatever the runs asked for say, a bounded number of them gives a reference."""
    for value in (None, 1.0, 2.2, 2.5, 4.0):
        runs: list[ReplayRun] = list(ASLEEP)
        for _ in range(3 * POLICY.runs + 1):
            found: Footing = footing(RUNGS, runs, NONE, NOISE, POLICY)
            if found.reference:
                break
            runs.append(failing(found.ask, "crash") if value is None else replay_run(found.ask, value))
        assert found.reference is not None


@pytest.mark.parametrize(
    ("own", "base", "short"),
    [
        ([2.2] * 6, [2.5] * 3, False),
        ([2.21] * 6, [2.5] * 3, False),  # a sigma less than attested is noise
        ([2.25] * 6, [2.5] * 3, True),
        ([2.5] * 6, [2.5] * 3, True),
        ([2.1] * 6, [2.5] * 3, False),
        ([], [2.5], False),
        ([2.5], [], False),
    ],
)
def test_falls_short(own: Sequence[float], base: Sequence[float], short: bool) -> None:
    assert falls_short(TOP, own, base, NOISE, POLICY) is short


CALM = [2.50, 2.51, 2.49]


@pytest.mark.parametrize(
    ("own", "base", "noise", "loud"),
    [
        ([2.20, 2.21, 2.19, 2.20], CALM, NOISE, False),
        ([2.20, 2.23, 2.17, 2.22], CALM, NOISE, False),  # more than the snapshot, as many a model
        ([2.2, 2.2, 2.2, 2.9, 2.2, 2.9], CALM, NOISE, False),  # what else this machine did hit a third of them
        ([2.2, 2.9, 2.2, 2.9, 2.2, 2.9], CALM, NOISE, True),
        ([2.9, 2.9, 2.2, 2.9, 2.9, 2.2, 2.9, 2.9], CALM, NOISE, True),  # good by chance
        ([2.2, 2.9, 2.2, 2.9, 2.2, 2.9], [2.2, 2.8, 2.5], NOISE, False),  # so is the snapshot: it is the machine
        ([2.2, 2.9, 2.2, 2.9, 2.2, 2.9], CALM, NoiseRecord(), True),
        ([2.2, 2.9, 2.2, 2.9, 2.2, 2.9], CALM, NoiseRecord(20 * 0.35**2, 20.0), True),  # a record that such runs fed
        ([2.2], CALM, NOISE, False),
        ([2.2, 2.9, 2.2, 2.9], [2.5], NOISE, False),
    ],
)
def test_scatters(own: Sequence[float], base: Sequence[float], noise: NoiseRecord, loud: bool) -> None:
    assert scatters(own, base, noise, POLICY) is loud


@given(st.floats(1.0, 3.0), st.floats(1.0, 3.0), st.floats(0, 0.5))
def test_without_a_degree_of_freedom_nothing_falls_short(own: float, base: float, gain: float) -> None:
    assert not falls_short(Rung("incumbent", gain), [own], [base], NoiseRecord(), POLICY)


def test_lead_is_what_the_chain_is_ahead() -> None:
    assert lead(RUNGS, TOP) == 0.0
    assert lead(RUNGS, MIDDLE) == pytest.approx(0.1)
    assert lead(RUNGS, BOTTOM) == pytest.approx(0.3)


def test_an_approved_score_follows_what_is_shown_over_the_snapshot() -> None:
    runs = [replay_run("snapshot", 2.5), replay_run("snapshot", 2.52), replay_run("candidate", 2.3)]
    runs.append(replay_run("candidate", 2.3, overtime={"seconds": 1.0, "slope": 0.3, "error": 0.0, "bpb": 0.02}))
    assert over_snapshot(runs, NONE) == pytest.approx(0.2)
    assert over_snapshot(runs[2:], Known((2.6,))) == pytest.approx(0.29)
    assert over_snapshot(runs[:2], NONE) is None
    assert over_snapshot(runs[2:], NONE) is None
    assert anchored(0.3, None, POLICY) == 0.3
    assert anchored(0.3, 0.2, POLICY) == pytest.approx(0.25)


def test_errors_of_many_approvals_do_not_add_up() -> None:
    """Each gain is chosen for looking good, by 0.1 sigma; summed up, 80 of them were off by 8 and more."""
    rng, gain, summed, score = random.Random(1), 0.0, 0.0, 0.0
    worst = 0.0
    for _ in range(80):
        gain += 3.0
        delta, shown = 3.0 + rng.gauss(0.1, 0.4), gain + rng.gauss(0, 0.6)
        summed, score = summed + delta, anchored(score + delta, shown, POLICY)
        worst = max(worst, abs(score - gain))
    assert worst < 2.0 < summed - gain
