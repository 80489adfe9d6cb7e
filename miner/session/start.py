"""What every mining command begins with: a connection, a project, its artifacts, a bench, a wallet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.connection.opening import AUTHORITY, MINER, Connection
from chain.errors import ChainError, NotFound
from chain.indexer.rules import Follower, index_path
from chain.money import score
from chain.program.accounts import Project
from chain.program.events import ProjectCreated
from chain.projects.artifacts import ProjectArtifacts, ProjectTerms, fetch_project, publish_project
from common.terminal import View
from miner.context.goals import Goals
from miner.executors.choice import Executing
from miner.journal import about, sessions
from miner.journal.journal import Journal
from miner.proposers.choice import Proposing
from miner.report.dashboard import Dashboard, Sample
from miner.session.frontier import SCRIPT
from miner.session.loop import Earlier, Miner, claimed_metric, new_session
from miner.staking import confirm, submit
from trainer.errors import TrainerError
from trainer.measurement.bench import Bench, open_bench
from trainer.project import bundle, recipe, task
from trainer.project.task import Benchmark, Task
from trainer.statistics import curve
from trainer.statistics.comparison import Arm

SMOKE = "smoke"
_LOCAL = Executing()


@dataclass(slots=True)
class Started:
    """Everything that a mining command works with."""

    connection: Connection
    project: Project
    task: Task
    bench: Bench
    convention: score.Convention
    wallet: Keypair
    reward_recipient: Pubkey
    stake: int
    folder: Path
    journal: Journal
    follower: Follower
    view: Dashboard
    published_runs: list[Earlier] = field(default_factory=list)
    trust_harness: bool = False

    def miner(self, goals: Goals, proposing: Proposing, *, race: bool = True, executing: Executing = _LOCAL) -> Miner:
        """The mining session; baseline runs that published the project count as its own."""
        miner = Miner(
            self.connection,
            self.project,
            self.task,
            self.bench,
            self.convention,
            proposing.build(seed=self.journal.session.seed, files=self.task.files, say=self.view.say),
            folder=self.folder,
            journal=self.journal,
            follower=self.follower,
            wallet=self.wallet,
            reward_recipient=self.reward_recipient,
            goals=replace(goals, max_spend=self.connection.settings["max_spend"]),
            view=self.view,
            race=race,
            cluster=executing.cluster(self.task, self.bench, self.view.say, trust_harness=self.trust_harness),
        )
        if self.published_runs and not self.journal.session.trials:
            miner.adopt_baseline(self.published_runs)
        return miner


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
    agrees: Callable[[str], bool] = lambda question: False,
    publish: str = SMOKE,
    text: str | None = None,
) -> Iterator[Started]:
    """Open everything else, say where we are, and close it at the end; the connection stays open.

    `publish` names the bundled project that a local network without any gets, `text` the folder of local text that
    it is trained on (None: the recipe's own data). `agrees` asks the user a question where `yes` was not given.
    """
    view = Dashboard(quiet=quiet)
    recipient = _address(reward_recipient) if reward_recipient else None
    home = connection.home
    _say_where(connection, home, view)
    question = f"This may stake real tokens on {connection.network.name}. Go on?"
    if not (connection.network.is_local or yes or agrees(question)):
        raise ChainError(f"Mining on {connection.network.name} may spend.", "Give --yes to agree to it.")
    wallet = connection.wallet(keypair, MINER)
    published: list[Earlier] = []
    project = _choose(connection, project_id)
    if project is None:
        project, published = _publish(connection, home, view, publish, text)
    artifacts = fetch_project(connection, project)
    parsed = task.read(artifacts)
    convention = score.infer(project.baseline_aggregate_score, parsed.baseline, minimize=parsed.minimize)
    view.say(
        f"project {project.id}, {project.token_name}: baseline {parsed.baseline:.6f}, "
        f"best {convention.to_metric(project.current_best_aggregate_score):.6f} {parsed.protocol.primary.name}"
    )
    with view.step("preparing environment and data") as word:
        bench = open_bench(
            parsed.protocol_bytes,
            parsed.files,
            home=home,
            say=word,
            data_arguments=parsed.benchmark.data_arguments,
            expected_snapshot=parsed.benchmark.data_snapshot,
            trust_harness=trust_harness,
        )
    view.say(
        f"this machine: {bench.machine.hardware_class}, data snapshot {bench.data_snapshot[:16]}, "
        f"measurement {bench.method} ({bench.isolation if bench.measurer else bench.why_not})"
    )
    folder = home / "work" / sessions.folder_name(connection.network.name, project.id, str(wallet.pubkey()))
    begun = published[0].began if published else None
    journal = new_session(folder / "session.jsonl", project.id, wallet.pubkey(), begun=begun)
    about.save(folder, about.describe(connection.network.name, project, parsed, convention, bench))
    budget = bench.protocol.execution.training_seconds
    view.state.title = f"mining {project.token_symbol} (project {project.id}) on {connection.network.name}"
    view.reader = lambda line: _sample(line, budget)
    with (
        closing(journal),
        Follower(connection.network, project.id, index_path(home, connection.network)) as follower,
    ):
        yield Started(
            connection,
            project,
            parsed,
            bench,
            convention,
            wallet,
            recipient or wallet.pubkey(),
            stake,
            folder,
            journal,
            follower,
            view,
            published,
            trust_harness,
        )


def _sample(line: str, budget: float) -> Sample | None:
    """Loss and throughput in a line of a run's log, for the view."""
    point = curve.read(line)
    return None if point is None else Sample(point.progress * budget, point.loss, point.rate)


def _say_where(connection: Connection, home: Path, view: View) -> None:
    if connection.network.name == "embedded":
        view.say(f"embedded local network in {home}: nothing is real and nothing leaves this machine", style="bold")
    else:
        view.say(f"network {connection.network.name}, home {home}", style="bold")


def _choose(connection: Connection, project_id: int | None) -> Project | None:
    """The project asked for, or the only one there is; None where a local network has none yet."""
    if project_id is not None:
        return connection.client.project(project_id)
    projects = connection.client.projects()
    if len(projects) == 1:
        return projects[0]
    if projects:
        known = ", ".join(f"{project.id} ({project.token_symbol})" for project in projects[:10])
        raise ChainError(f"There are {len(projects)} projects: {known}.", "Name one with --project.")
    if connection.network.is_local:
        return None
    raise NotFound(f"There is no project on {connection.network.name}.", "Check --network.")


def _publish(
    connection: Connection, home: Path, view: View, name: str, text: str | None
) -> tuple[Project, list[Earlier]]:
    """Publish a bundled project with a baseline measured here; its baseline runs."""
    view.say(f"no project here yet: publishing the bundled {name} project")
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
    runs: list[Earlier] = []
    for number in range(1, chosen.terms.baseline_runs + 1):
        began = time.time()
        with view.step(f"baseline, run {number} of {chosen.terms.baseline_runs}", bench.usual_seconds) as word:
            run = bench.measure(Arm.INCUMBENT, chosen.files, word)
        if run.val_bpb is None:
            raise TrainerError(
                f"The {name} project does not run on this machine: {run.detail}",
                "See the README's requirements.",
            )
        view.say(f"  {run.val_bpb:.6f} val_bpb in {run.seconds:.1f} s")
        runs.append(Earlier(run, began, time.time()))
    metrics = task.baseline_document(
        bench.protocol.primary.name,
        [made.run.val_bpb for made in runs if made.run.val_bpb is not None],
        [made.run.seconds for made in runs],
        hardware=bench.machine.as_json(),
        data_snapshot=bench.data_snapshot,
    )
    benchmark = Benchmark(bench.protocol.bundle_id, data_arguments, bench.data_snapshot)
    terms = chosen.terms
    done = publish_project(
        connection,
        connection.wallet(None, AUTHORITY),
        ProjectArtifacts(chosen.files["protocol.json"], bundle.pack(chosen.files), benchmark.dump(), metrics, None),
        ProjectTerms(
            # The live project's convention: a positive baseline, scores reflected about it.
            score.scale(task.baseline_metric(metrics)),
            terms.token_name,
            terms.token_symbol,
            terms.base_price,
            terms.slope,
            terms.miner_pool_cap,
        ),
    )
    project = connection.client.project(done.event(ProjectCreated).project_id)
    view.say(f"project {project.id} is published, mint {project.mint}")
    return project, runs


def submit_file(session: Started, file: Path, claim: str | None, min_confidence: float = 0.99) -> tuple[int, Decimal]:
    """Submit a train.py of the user's; the proposal's id and the claimed metric.

    Without a claim it goes through the confirming test against the best on chain, is refused where it does not
    pass, and the claim is the measured gain. With a claim it is the user's own stake and word.
    """
    try:
        source = file.read_bytes()
        source.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainerError(f"{file} is not a readable UTF-8 text file: {error}.", "Name a train.py.") from error
    files = bundle.overlay(session.task.files, {SCRIPT: source}, session.task.protocol.surface)
    bench, project, convention = session.bench, session.project, session.convention
    if claim is None:
        best = float(convention.to_metric(project.current_best_aggregate_score))
        done = confirm.confirm(
            bench,
            session.task,
            {Arm.INCUMBENT: session.task.incumbent, Arm.CANDIDATE: files},
            session.journal,
            number=-1,
            commit=sha256(source).hexdigest(),
            against=project.current_best_code_hash.hex(),
            folder=session.folder,
            policy=confirm.policy_at(min_confidence, bench.protocol.margin(best)),
            view=session.view,
        )
        if not done.passed or done.delta is None:
            raise TrainerError(
                f"{file} did not pass the confirming test: {done.reason}. Its stake would probably be lost.",
                "Nothing was submitted; --claim submits it all the same.",
            )
        with session.view.step("one run by the protocol's own command", bench.usual_seconds) as word:
            log = bench.plain_run(files, word).log
        metric, claimed = submit.anchored_score(project, convention, round(done.delta, 6))
    else:
        metric = claimed_metric(claim)
        claimed = convention.to_score(metric)
        log = f"unmeasured claim\n---\n{session.task.protocol.primary.name}: {metric}\n".encode()
    submit.reconcile(session.connection.client, session.wallet.pubkey(), project, session.journal)
    offer = submit.Offer(-1, bundle.pack(files), log, claimed, session.stake, session.reward_recipient)
    proposal = submit.submit(
        session.connection,
        session.wallet,
        project,
        offer,
        session.journal,
        machine=bench.machine,
        data_snapshot=bench.data_snapshot,
        say=session.view.say,
    )
    return proposal, metric


def _address(text: str) -> Pubkey:
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise ChainError(f"{text!r} is not a Solana address.", "Give 32 bytes in base58.") from None
