"""What whole mining sessions find per machine-hour: the miner's own code against four references.

    python -m tests.benchmarks.bench_mining [--quick]

For each training budget and each mean gain of an improvement it plays 8-hour sessions of
`tests.benchmarks.simulation` from a first start (empty noise record) and prints true gains, kept no-ops and how many
times a reference's gain ours is.
Sigma at 45 and 120 seconds is that of one unchanged script on an H200; at 300 seconds it is assumed. Then it looks
into three things: milder losses, a machine that wanders, and what the incumbent's selected runs do to later trials.
Everything is seeded. A few minutes on one core; --quick plays a fifth of the sessions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from tests.benchmarks.simulation import (
    REFERENCES,
    STRATEGIES,
    Count,
    Landscape,
    Strategy,
    advantage,
    ours,
    play,
    summarise,
)
from trainer.statistics.error_rates import ComparisonPolicy, Look
from trainer.statistics.mining import MiningPolicy

HOURS = 8.0
BUDGETS = ((45, 0.05, 60.0, 30), (120, 0.009, 140.0, 75), (300, 0.004, 330.0, 150))
"""Budget in seconds, sigma in bpb, seconds a run takes with start and evaluation, sessions."""

EFFECTS = (0.5, 1.0, 2.0, 3.0)


def sessions(strategy: Strategy, landscape: Landscape, number: int) -> list[Count]:
    """`number` sessions, the same candidates for every strategy."""
    return [play(strategy, landscape, hours=HOURS, seed=seed) for seed in range(number)]


def compare_all(landscape: Landscape, number: int, names: Sequence[str] = tuple(STRATEGIES)) -> dict[str, list[Count]]:
    """One block of the table, and the sessions behind it."""
    counts = {name: sessions(STRATEGIES[name], landscape, number) for name in names}
    for name in names:
        result = summarise(name, counts[name], counts["oracle"], HOURS)
        gain, regret = result.gain_per_hour, result.regret_per_hour
        times = ""
        if name in REFERENCES:
            ratios = [advantage(counts[own], counts[name]) for own in ("ours", "ours+pruning")]
            times = "   ".join(f"{r.value:5.2f} ±{r.error:.2f}" if r.value == r.value else "theirs ≤ 0" for r in ratios)
        print(
            f"   {name:12s} {gain.value / landscape.sigma:7.3f} ±{gain.error / landscape.sigma:.3f} "
            f"{gain.value:9.5f} {regret.value / landscape.sigma:7.3f} {result.no_ops_kept.value:8.2%} "
            f"±{result.no_ops_kept.error:.2%} {result.harmful_kept.value:8.2%} {result.improving_kept.value:9.1%} "
            f"{result.trials:6.0f}   {times}"
        )
    return counts


HEADER = (
    f"   {'':12s} gain/h, sigma      bpb  regret  no-ops kept  harmful  improving  trials   ours over it, with pruning"
)


def histories() -> dict[str, Strategy]:
    """Ours with other rules for what of the incumbent's runs counts."""

    def dropping(enough: int) -> Strategy:
        return partial(ours, history_of=lambda kept, fresh: list(fresh if len(fresh) >= enough else [*kept, *fresh]))

    return {
        "all": partial(ours, history_of=lambda kept, fresh: [*kept, *fresh]),
        "drop at once": dropping(0),
        "drop after 1": dropping(1),
        "as built": ours,
        "drop after 8": dropping(8),
    }


class ToppedUp(MiningPolicy):
    """The miner's policy before: no look before the incumbent is topped up, no answer for economy's sake."""

    __slots__ = ()

    def looks(self, history: int, noise_df: float) -> tuple[Look, ...]:
        return ComparisonPolicy.looks(self, history, noise_df)


def topped_up(*, stale: bool, recent: bool, worth: float) -> ComparisonPolicy:
    """Of a trial, after `stale` trials without a run of the incumbent; the others are not asked."""
    return ToppedUp(spending=1.0, first_approval=2, refresh=1, early_refresh=int(stale))


def main() -> None:
    divisor = 5 if "--quick" in sys.argv[1:] else 1
    for budget, sigma, seconds, number in BUDGETS:
        number //= divisor
        print(f"\n{budget} s of training, {seconds:.0f} s a run, sigma {sigma} bpb; {number} sessions of {HOURS:.0f} h")
        print(HEADER)
        for effect in EFFECTS:
            print(f"  gains of {effect} sigma in the mean")
            compare_all(Landscape(sigma=sigma, effect=effect, run_seconds=seconds), number)

    number = 75 // divisor
    print(f"\nOther landscapes, 140 s a run, {number} sessions")
    print(HEADER)
    for title, landscape in (
        ("losses no larger than gains (harm 1), gains of 1 sigma", Landscape(effect=1.0, harm=1.0)),
        ("losses no larger than gains (harm 1), gains of 2 sigma", Landscape(effect=2.0, harm=1.0)),
        ("machine wanders by 1 sigma, gains of 1 sigma", Landscape(effect=1.0, drift=1.0)),
        ("machine wanders by 2 sigma, gains of 2 sigma", Landscape(effect=2.0, drift=2.0)),
        ("one run of 30 diverges by 20 sigma, gains of 2 sigma", Landscape(effect=2.0, diverge=1 / 30)),
        ("one run of 30 diverges by 20 sigma, gains of 5 sigma", Landscape(effect=5.0, diverge=1 / 30)),
    ):
        print(f"  {title}")
        compare_all(landscape, number)

    number = 150 // divisor
    print(f"\nThe incumbent's runs that it was kept by, and the policy; 140 s a run, {number} sessions")
    print("   history        gain/h, sigma   no-ops kept      improving kept")
    variants = histories() | {"policy before": partial(ours, policy_of=topped_up)}
    for effect in (1.0, 2.0):
        print(f"  gains of {effect} sigma in the mean")
        landscape = Landscape(effect=effect)
        for name, strategy in variants.items():
            counts = sessions(strategy, landscape, number)
            result = summarise(name, counts, counts, HOURS)
            gain = result.gain_per_hour
            print(
                f"   {name:13s} {gain.value / landscape.sigma:7.3f} ±{gain.error / landscape.sigma:.3f} "
                f"{result.no_ops_kept.value:9.2%} ±{result.no_ops_kept.error:.2%} "
                f"{result.improving_kept.value:9.1%} ±{result.improving_kept.error:.1%}"
            )


if __name__ == "__main__":
    main()
