"""A local network without a project gets a bundled one, with a baseline that is measured here."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from chain.connection.opening import AUTHORITY, Connection
from chain.money import score
from chain.program.accounts import Project
from chain.program.events import ProjectCreated
from chain.projects.artifacts import ProjectArtifacts, ProjectTerms, publish_project
from common import baseline
from common.terminal import View
from miner.context.context import Earlier
from trainer.errors import UNFIT, TrainerError
from trainer.judging.trial import until_fit
from trainer.measurement.abreast import abreast, filled
from trainer.measurement.bench import open_bench
from trainer.measurement.run import Run
from trainer.measurement.salts import fresh_salt
from trainer.project import bundle, recipe
from trainer.project.task import Benchmark
from trainer.statistics.comparison import Arm, steady
from trainer.statistics.mining import MiningPolicy, baseline_runs


def publish_bundled(
    connection: Connection, home: Path, view: View, name: str, text: str | None
) -> tuple[Project, list[Earlier]]:
    """Publish the bundled project `name`, on local text where a folder `text` is given; its baseline runs as well."""
    view.say(f"no project yet: publishing the bundled {name} project")
    chosen = recipe.load(name)
    data_arguments = ("--text", str(Path(text).absolute())) if text else chosen.data_arguments
    with view.step("preparing environment and data", 20) as word:
        bench = open_bench(
            chosen.files["protocol.json"],
            chosen.files,
            home=home,
            say=word,
            data_arguments=data_arguments,
        )
    runs, benches = list[Earlier](), bench.each_gpu()

    def values() -> list[float]:
        return [made.run.val_bpb for made in runs if made.run.val_bpb is not None]

    def more(left: int) -> list[Run]:
        began, numbers = time.time(), range(wanted - left + 1, wanted + 1)[: len(benches)]
        what = f"baseline, run {' and '.join(map(str, numbers))} of {wanted}"
        with view.step(what, bench.usual_seconds) as word:
            salted = [partial(one.measure, Arm.INCUMBENT, chosen.files, salt=fresh_salt()) for one in benches]
            made = abreast(salted[: len(numbers)], word)
        for run in made:
            if run.failure == UNFIT:
                view.say(f"  run discarded and repeated: {run.detail}", style="yellow")
            elif run.val_bpb is None:
                raise TrainerError(
                    f"The {name} project does not run on this machine: {run.told}",
                    "Run `miner doctor` to see what this machine lacks.",
                )
            else:
                view.say(f"  {run.val_bpb:.6f} val_bpb in {run.seconds:.1f} s")
                runs.append(Earlier(run, began, time.time()))
        return made

    while (wanted := filled(max(chosen.terms.baseline_runs, baseline_runs(values())), len(benches))) > len(runs):
        until_fit(more, wanted - len(runs))
    usual = steady(values(), bench.noise(), MiningPolicy())
    for value in values():
        if value not in usual:
            view.say(f"  {value:.6f} stands apart from the others and is left out", style="yellow")
    metrics = baseline.dump(
        bench.protocol.primary.name,
        usual,
        [made.run.seconds for made in runs],
        hardware=bench.machine.as_json(),
        data_snapshot=bench.data_snapshot,
    )
    benchmark = Benchmark(bench.protocol.bundle_id, data_arguments, bench.data_snapshot)
    terms = chosen.terms
    creator = connection.wallet(None, AUTHORITY)
    with view.step("uploading the artifacts and creating the project"):
        done = publish_project(
            connection,
            creator,
            ProjectArtifacts(
                chosen.files["protocol.json"],
                bundle.pack(chosen.files),
                benchmark.dump(),
                metrics,
                None,
                # The live project's convention: a positive baseline, scores reflected about it.
                score.scale(baseline.read(metrics, bench.protocol.primary.name).metric),
            ),
            ProjectTerms(
                terms.token_name,
                terms.token_symbol,
                terms.base_price,
                terms.slope,
                terms.miner_pool_cap,
            ),
        )
        project = connection.client.project(done.event(ProjectCreated).project_id)
    view.say(f"published project {project.id}, mint {project.mint}")
    return project, runs
