"""What every mining command begins with: a connection, a project, its artifacts, a bench, a wallet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from solders.pubkey import Pubkey

from chain.connection.opening import MINER, Connection
from chain.errors import ChainError, NotFound
from chain.indexer.rules import Follower, index_path
from chain.money import score
from chain.program.accounts import Project
from chain.projects.artifacts import fetch_project
from common.files import locked
from common.terminal import View
from miner.context.context import Earlier, SessionContext
from miner.context.goals import Goals
from miner.executors.choice import Executing
from miner.journal import about, sessions
from miner.journal.journal import Journal, require_free, written
from miner.proposers.choice import Proposing
from miner.report.dashboard import Dashboard, Sample
from miner.session import prospect
from miner.session.loop import Miner
from miner.session.publish import publish_bundled
from trainer.measurement.bench import open_bench
from trainer.project import task
from trainer.statistics import curve

SMOKE = "smoke"
_PUBLISHING = 6 * 3600.0  # seconds that another process may take: it prepares the data and measures the baseline
_WAITING = "waiting for another process that publishes the bundled project here"
_LOCAL = Executing()


def miner(
    context: SessionContext,
    goals: Goals,
    proposing: Proposing,
    *,
    prune: bool = True,
    executing: Executing = _LOCAL,
) -> Miner:
    """The mining session; baseline runs that published the project count as its own."""
    context.goals, context.prune = replace(goals, max_spend=context.connection.settings["max_spend"]), prune
    say = context.dashboard.say
    proposer = proposing.build(seed=context.session.seed, files=context.task.files, say=say)
    similar = list(prospect.similar(context.connection.home, about.load(context.folder)))
    if expected := prospect.words(prospect.prospect(similar), goals.max_minutes):
        say(expected)
    cluster = executing.cluster(context.task, context.bench, say, trust_harness=context.trust_harness)
    return Miner(context, proposer, cluster=cluster)


@contextmanager
def started(
    connection: Connection,
    project_id: int | None,
    *,
    quiet: bool,
    keypair: str | None,
    reward_recipient: str | None,
    stake: int,
    yes: bool,
    trust_harness: bool,
    unconfined: bool = False,
    agrees: Callable[[str], bool] = lambda question: False,
    publish: str = SMOKE,
    text: str | None = None,
) -> Iterator[SessionContext]:
    """Open everything else, say where we are, and close it at the end; the connection stays open.

    `publish` names the bundled project that a local network without any gets, `text` the folder of local text that
    it is trained on (None: the recipe's own data). `agrees` asks the user a question where `yes` was not given.
    """
    dashboard = Dashboard(quiet=quiet)
    recipient = _address(reward_recipient) if reward_recipient else None
    home = connection.home
    _say_where(connection, home, dashboard)
    question = f"This may stake real tokens on {connection.network.name}. Continue?"
    if not (connection.network.is_local or yes or agrees(question)):
        raise ChainError(
            f"Mining on {connection.network.name} spends SOL of your wallet and may lose the stake.",
            "Add --yes --max-spend 0.05 to allow it.",
        )
    wallet = connection.wallet(keypair, MINER)
    project, published = _open_project(connection, project_id, dashboard, publish, text)
    folder = home / "work" / sessions.folder_name(connection.network.name, project.id, str(wallet.pubkey()))
    require_free(folder / sessions.JOURNAL)
    with dashboard.step("fetching and verifying artifacts"):
        artifacts = fetch_project(connection, project)
    parsed = task.read(artifacts)
    for note in parsed.notes:
        dashboard.say(note)
    convention = score.infer(project.baseline_aggregate_score, parsed.baseline, minimize=parsed.minimize)
    dashboard.say(
        f"project {project.id}, {project.token_name}: baseline {parsed.baseline:.6f}, "
        f"best {convention.to_metric(project.current_best_aggregate_score):.6f} {parsed.protocol.primary.name}"
    )
    with dashboard.step("preparing environment and data") as word:
        bench = open_bench(
            parsed.protocol_bytes,
            parsed.files,
            home=home,
            say=word,
            data_arguments=parsed.benchmark.data_arguments,
            expected_snapshot=parsed.benchmark.data_snapshot,
            trust_harness=trust_harness,
        )
    measured = (
        f"measured in a sandbox ({bench.isolation})"
        if bench.measurer
        else f"no sandbox: results are self-reported ({bench.why_not})"
    )
    if (gpus := len(bench.each_gpu())) > 1:
        measured += f", on {gpus} GPUs side by side"
    dashboard.say(f"this machine: {bench.machine.hardware_class}, data snapshot {bench.data_snapshot[:16]}, {measured}")
    if bench.machine.doubt:
        dashboard.say(f"this machine cannot be named: {bench.machine.doubt}", style="yellow")
    if why := bench.plain_problem(parsed.incumbent):
        dashboard.say(
            f"the protocol's own command cannot run here: {why}. Mining does not need it; the benchmark log of a "
            "proposal will be of a trusted run, and say so.",
            style="yellow",
        )
    begun = published[0].began if published else None
    journal = new_session(folder / sessions.JOURNAL, project.id, wallet.pubkey(), begun=begun)
    about.save(folder, about.describe(connection.network.name, project, parsed, convention, bench))
    budget = bench.protocol.execution.training_seconds
    dashboard.state.title = f"mining {project.token_symbol} (project {project.id}) on {connection.network.name}"
    dashboard.reader = lambda line: _sample(line, budget)
    with (
        closing(journal),
        Follower(connection.network, project.id, index_path(home, connection.network), dashboard.say) as follower,
    ):
        context = SessionContext(
            connection,
            project,
            parsed,
            bench,
            convention,
            wallet,
            recipient or wallet.pubkey(),
            folder,
            journal,
            follower,
            dashboard,
            Goals(stake=stake),
            published,
            trust_harness,
            unconfined,
        )
        context.require_confined()
        yield context


def _sample(line: str, budget: float) -> Sample | None:
    """Loss and throughput in a line of a run's log, for the view."""
    point = curve.read(line)
    return None if point is None else Sample(point.progress * budget, point.loss, point.rate)


def _say_where(connection: Connection, home: Path, view: View) -> None:
    if connection.network.name == "embedded":
        view.say(f"Practice network (local): no real tokens, nothing leaves this machine. Data: {home}", style="bold")
    else:
        view.say(f"network {connection.network.name}, home {home}", style="bold")


def _open_project(
    connection: Connection, project_id: int | None, view: View, publish: str, text: str | None
) -> tuple[Project, list[Earlier]]:
    """The project to mine, and its baseline runs where it was published here just now; one process publishes."""
    with view.step("looking up the project"):
        project = _choose(connection, project_id)
    if project is not None:
        return project, []
    waiting = ExitStack()

    def busy() -> None:
        waiting.enter_context(view.step(_WAITING))

    with waiting, locked(connection.home / "publish.lock", _PUBLISHING, busy=busy):
        waiting.close()
        project = _choose(connection, project_id)  # somebody else may have published it meanwhile
        return (project, []) if project else publish_bundled(connection, connection.home, view, publish, text)


def _choose(connection: Connection, project_id: int | None) -> Project | None:
    """The project asked for, or the only one there is; None if a local network has none yet."""
    if project_id is not None:
        return connection.client.project(project_id)
    projects = connection.client.projects()
    if len(projects) == 1:
        return projects[0]
    if projects:
        known = ", ".join(f"{project.id} ({project.token_symbol})" for project in projects[:10])
        raise ChainError(f"There are {len(projects)} projects: {known}.", "Choose one with --project.")
    if connection.network.is_local:
        return None
    raise NotFound(f"There is no project on {connection.network.name}.", "Check --network.")


def new_session(path: Path, project: int, miner: Pubkey, *, begun: float | None = None) -> Journal:
    """The journal at `path`, begun now or at `begun` (Unix seconds) if it is new.

    The seed follows from project and wallet, so it is stable.
    """
    journal = Journal(path)
    if not journal.session.tag:
        seed = int.from_bytes(sha256(bytes(miner) + project.to_bytes(8, "little")).digest()[:4], "little")
        begun = time.time() if begun is None else begun
        tag = time.strftime("%Y%m%d-%H%M%S", time.gmtime(begun))
        journal.append("session", seed=seed, tag=tag, at=written(begun))
    return journal


def _address(text: str) -> Pubkey:
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise ChainError(f"{text!r} is not a Solana address.", "Use 32 bytes in base58.") from None
