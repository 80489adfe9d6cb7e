"""What a way of deciding earns per machine-hour: `python -m tests.benchmarks.simulate`, truth known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chain.commands.options import Command, answer, json_option


@click.command(cls=Command)
@json_option
@click.option("--sessions", type=click.IntRange(2, 100_000), default=100, show_default=True, help="Sessions to play.")
@click.option(
    "--hours", type=click.FloatRange(0.1, 1000), default=8.0, show_default=True, help="Machine-hours of each."
)
@click.option(
    "--sigma",
    type=click.FloatRange(1e-6, 0.1),
    default=0.009,
    show_default=True,
    help="Run-to-run standard deviation of val_bpb.",
)
@click.option(
    "--effect",
    type=click.FloatRange(0, 20),
    default=1.0,
    show_default=True,
    help="Mean gain of an improvement, in units of --sigma.",
)
@click.option(
    "--harm",
    type=click.FloatRange(0, 100),
    default=3.0,
    show_default=True,
    help="Mean loss of a harmful candidate, in units of --effect.",
)
@click.option(
    "--drift",
    type=click.FloatRange(0, 20),
    default=0.0,
    show_default=True,
    help="Slow wander of the machine, in units of --sigma.",
)
@click.option(
    "--run-seconds", type=click.FloatRange(0.1, 86_400), default=140.0, show_default=True, help="How long a run takes."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the first session.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Resample this session's noise, gains, crashes and run time instead.",
)
def simulate(
    as_json: bool,
    sessions: int,
    hours: float,
    sigma: float,
    effect: float,
    harm: float,
    drift: float,
    run_seconds: float,
    seed: int,
    journal: Path | None,
) -> None:
    """Play mining sessions whose true gains are known, and count what each way of deciding finds.

    Of the candidates 70 % are harmful, 20 % change nothing and 10 % improve; 5 % of all crash. Gains grow rarer
    as the best improves. "ours" is the miner's own code, with and without pruning by loss curves. The others keep
    what one run measured lower than the best so far (lower) or than a new run of the incumbent (lower-fresh), or
    what a 95 % bootstrap shows lower in three runs against the incumbent's three (three) or three new ones
    (three-fresh). The oracle knows the truth; regret is what it finds more.

    Gains are true ones, of the code that is kept at the end, not measured ones.
    """
    from dataclasses import asdict, replace

    from common.terminal import View
    from miner.journal.journal import read
    from tests.benchmarks import simulation as engine

    if journal is not None:
        landscape = replace(engine.recorded(read(journal)), drift=drift)
    else:
        landscape = engine.Landscape(sigma=sigma, effect=effect, harm=harm, drift=drift, run_seconds=run_seconds)
    view = View(quiet=as_json)
    counts: dict[str, list[engine.Count]] = {}
    try:
        for name, strategy in engine.STRATEGIES.items():
            with view.step(f"{name}: {sessions} sessions of {hours:g} hours") as word:
                counts[name] = []
                for number in range(sessions):
                    counts[name].append(engine.play(strategy, landscape, hours=hours, seed=seed + number))
                    word(f"{number + 1} of {sessions}")
    except KeyboardInterrupt:
        view.say("\nstopped; the same command with the same --seed plays the same sessions")
        raise SystemExit(130) from None
    results = [engine.summarise(name, count, counts["oracle"], hours) for name, count in counts.items()]
    document = {
        "landscape": {k: v for k, v in asdict(landscape).items() if k not in ("effects", "residuals")},
        "resampled": {"effects": len(landscape.effects), "residuals": len(landscape.residuals)},
        "sessions": sessions,
        "hours": hours,
        "seed": seed,
        "results": [
            asdict(result) | {"ours_over_it": asdict(engine.advantage(counts["ours"], counts[result.name]))}
            for result in results
        ],
    }
    answer(as_json, _finite(document), engine.table(results, counts, landscape))


def _finite(value: Any) -> Any:
    """The document with null for what is undefined, such as a share of no candidates."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    simulate()
