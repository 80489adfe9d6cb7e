"""The process around the arithmetic: sandboxes, files and the clock. See the package for the argument."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from trainer.errors import StopRun, TrainerError
from trainer.machine import environment as environments
from trainer.machine import scratch
from trainer.machine.environment import Environment
from trainer.measurement import facts as harness
from trainer.measurement import scoring
from trainer.measurement.outcomes import (
    MeasurementFailed,
    announced,
    ended,
    is_last,
    log_text,
    problem_of,
    refuse,
    require_in_time,
    show_lines,
)
from trainer.measurement.scoring import Losses, Tokens
from trainer.measurement.values import (
    MOST_BPB,
    Failure,
    Measurement,
    MeasurementPolicy,
    Phase,
    Probe,
    ProbeReport,
    Progress,
    Reference,
    RunFinding,
    Score,
)
from trainer.project import bundle
from trainer.project.protocol import Protocol
from trainer.sandbox import JobLimits, JobOutcome, Mount, Sandbox, UntrustedResult, interpreter_prefixes

_HERE: Final = Path(__file__).parent
_GRAPH: Final = "graph.mlxfn"
_NEGATIVE: Final = -1e-5  # no cross-entropy is below zero, but for the rounding of float32

_UNSUPPORTED: Final = "This project's harness is not supported for trusted measurement: {}."


@dataclass(slots=True)
class _Run:
    """What came out of training, filled in as it goes; `graph` is there exactly when `finding` is None."""

    train_seconds: float | None = None
    log: str = ""
    seconds: float = 0.0
    graph: Path | None = None
    graph_sha256: str | None = None
    finding: RunFinding | None = None


class Measurer:
    """Measures candidates of one project on this machine.

    `snapshot` is the project's pinned tree: its harness counts whatever a candidate's tree says. `cache` is its
    prepared data (the folder that holds `data/`), `work` a private folder for graphs and kept facts.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        environment: Environment,
        snapshot: Mapping[str, bytes],
        cache: Path,
        protocol: Protocol,
        work: Path,
        *,
        policy: MeasurementPolicy | None = None,
    ) -> None:
        """Finds the harness's facts (seconds, the first time). EnvironmentNotReady without data or sandbox."""
        self._sandbox, self._environment, self._cache, self._work = sandbox, environment, cache, work
        self._snapshot, self._protocol, self._policy = dict(snapshot), protocol, policy or MeasurementPolicy()
        self._argv = environments.resolve(protocol.execution.argv, environment)
        self._harness = harness.harness_path(self._argv, protocol.execution.cwd)
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.facts = harness.harness_facts(
            sandbox, environment, self._snapshot, self._harness, cache, work, self._policy
        )

    def on_data(self, cache: Path) -> Measurer:
        """The same measurer over another view of the same data: other training text, the same validation rows."""
        other = copy(self)
        other._cache = cache
        return other

    def measure(
        self,
        files: Mapping[str, bytes],
        *,
        grace: float,
        reference: Reference | None = None,
        probes: int = 256,
        progress: Progress | None = None,
        budget_share: float = 1.0,
        salt: str = "",
    ) -> Measurement:
        """Train `files`, freeze the model, claim and prove on the validation rows.

        Of `files` only what the protocol lets a candidate change is taken. The run is told `budget_share` of the
        harness's budget, and the graph must be ready within that plus `grace` seconds. `salt` is mixed into the seeds
        and the order of the data (`trainer.measurement.salts`); "" leaves them as the script has them. `reference`:
        `Measurement.reference` of the best code so far. What a candidate does never raises, and a failure of this
        machine is a finding as well. TrainerError if the harness is not supported.
        """
        self._require_support()
        report = progress or _silent
        tree = bundle.overlay(self._snapshot, files, self._protocol.surface)
        run = self._train(tree, grace, report, budget_share, salt)
        score = None
        if run.graph is not None:
            score = self.score(run.graph, self.facts.rows, reference=reference, probes=probes, progress=report)
        return Measurement(
            val_bpb=score.val_bpb if score else None,
            score=score,
            train_seconds=run.train_seconds,
            graph=run.graph,
            graph_sha256=run.graph_sha256,
            files_sha256=bundle.digest(tree),
            log=run.log,
            findings=score.findings if score else (run.finding,) if run.finding else (),
            seconds={Phase.TRAINING: run.seconds} | (score.seconds if score else {}),
        )

    def score(
        self,
        graph: Path,
        rows: Tokens,
        *,
        reference: Reference | None = None,
        probes: int = 256,
        progress: Progress | None = None,
    ) -> Score:
        """Claim and prove a graph of `measure` on `rows`, int32 (N, T + 1): the validation rows, or fresh ones.

        Fresh rows are probed like the others: a graph could be honest on known text only. `reference` is the
        incumbent's `Score.reference` on the same rows.
        """
        self._require_support()
        report, seconds = progress or _silent, dict[Phase, float]()
        targets = rows[:, 1:]
        scored = self.facts.token_bytes[targets] > 0
        same = reference is None or reference.losses.size == targets.size
        if targets.shape[1] != self.facts.length or not scored.any() or not same:
            raise ValueError("score needs rows of T + 1 tokens, some with bytes, and the incumbent's losses on them")
        losses = claimed = proof = None
        try:
            report(Phase.CLAIM, "")
            losses = self.claim(graph, rows, seconds, reference)
            claimed = scoring.bits_per_byte(losses, targets, self.facts.token_bytes)
            _require_plausible(claimed)
            report(Phase.PROBES, "")
            proof = self._prove(graph, rows, losses, scored, probes, seconds, reference)
            finding = judge(proof, self._policy)
        except MeasurementFailed as failed:
            finding = failed.finding
        flat = None if losses is None else losses.reshape(-1)
        found = (finding,) if finding else ()
        return Score(None if found else claimed, claimed, flat, proof, found, seconds)

    def claim(
        self,
        graph: Path,
        rows: Tokens,
        seconds: dict[Phase, float] | None = None,
        reference: Reference | None = None,
    ) -> Losses:
        """The graph's cross-entropies on `rows`, float32 (N, T), finite and not negative. Only claimed.

        `seconds` gets the phase's duration. MeasurementFailed.
        """
        losses = self._run_graph(Phase.CLAIM, graph, rows, self.facts.length, seconds, reference)
        if not np.isfinite(losses).all():
            where = np.argwhere(~np.isfinite(losses))[0]
            raise MeasurementFailed(
                Failure.NON_FINITE, Phase.CLAIM, f"the loss at row {where[0]}, position {where[1]} is not finite"
            )
        if losses.min() < _NEGATIVE:
            raise MeasurementFailed(
                Failure.BAD_OUTPUT, Phase.CLAIM, f"a cross-entropy of {losses.min():.6f} is below zero"
            )
        return losses

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Rows for `score` from other text, int32 (N, T + 1), by the harness's own tokenizer.

        Each text begins with BOS; they are laid end to end and cut, and the rest is dropped.
        """
        self._require_support()
        with tempfile.TemporaryDirectory(prefix="texts-") as folder:
            file = Path(folder, "texts.json")
            file.write_text(json.dumps(list(texts)))
            found = harness.run_harness(
                self._sandbox,
                self._environment,
                self._snapshot,
                self._harness,
                self._cache,
                self._policy,
                {"rows.i32": 1 << 30},
                file,
            )
        data, width = found.get("rows.i32", b""), self.facts.length + 1
        return harness.token_rows(data, len(data) // (4 * width), self.facts.length, self.facts.vocabulary)

    def plain_run(self, files: Mapping[str, bytes], *, seconds: float, progress: Progress | None = None) -> JobOutcome:
        """Run `files` once as the protocol says, with all of the data and the harness's own evaluation, in a sandbox.

        Its log, with the number that it gives itself, is what a benchmark log holds. TrainerError if it cannot
        be started; StopRun of `progress` passes through.
        """
        tree = bundle.overlay(self._snapshot, files, self._protocol.surface)
        with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
            bundle.write_tree(tree, Path(folder, "code"))
            with self._sandbox.start(
                self._argv,
                limits=self._limits(seconds),
                tools=interpreter_prefixes(self._environment.python),
                mounts=[
                    Mount(Path(folder, "code"), "code"),
                    *harness.cache_mounts(self._cache, harness.cache_files(self._cache)),
                ],
                env=harness.data_environment(),
                cwd=f"code/{self._protocol.execution.cwd}",
            ) as job:
                show_lines(job, progress or _silent)
                return job.wait()

    def discard(self, measurement: Measurement) -> None:
        """Remove the measurement's graph."""
        if measurement.graph is not None:
            scratch.remove(measurement.graph)

    def _require_support(self) -> None:
        if not harness.supports(self.facts):
            raise TrainerError(
                _UNSUPPORTED.format(self.facts.problem), "Take the metric from the run's own output instead."
            )

    def _train(self, tree: Mapping[str, bytes], grace: float, report: Progress, budget_share: float, salt: str) -> _Run:
        budget, run = self.facts.budget_seconds * budget_share + grace, _Run()
        asked = {"BUDGET_SHARE": repr(budget_share)} if budget_share != 1 else {}
        if salt:
            asked |= {"SALT": salt, "PYTHONHASHSEED": str(int(salt[:8], 16))}
        report(Phase.TRAINING, "")
        try:
            with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
                bundle.write_tree(
                    {**tree, self._harness: (_HERE / "inside_prepare.py").read_bytes()}, Path(folder, "code")
                )
                bundle.write_tree(self._snapshot, Path(folder, "harness"))
                visible = harness.training_view(harness.cache_files(self._cache), self.facts.val_filename)
                job = self._sandbox.start(
                    self._argv,
                    limits=self._limits(budget),
                    tools=interpreter_prefixes(self._environment.python),
                    mounts=[
                        Mount(Path(folder, "code"), "code"),
                        Mount(Path(folder, "harness"), "harness"),
                        *harness.cache_mounts(self._cache, visible),
                    ],
                    env={
                        **harness.harness_environment(self._harness),
                        "VOCABULARY": str(self.facts.vocabulary),
                        "BATCH": str(self.facts.batch),
                        **asked,
                    },
                    cwd=f"code/{self._protocol.execution.cwd}",
                    last_word=is_last,
                )
                with job:
                    try:
                        show_lines(job, report)
                    finally:
                        outcome = job.kill()
                        run.log, run.seconds = log_text(outcome.output), outcome.seconds
                    run.train_seconds = announced(outcome)
                    require_in_time(run.train_seconds, budget)
                    data = job.result(_GRAPH, self._policy.graph_bytes)
                run.graph, run.graph_sha256 = self._keep(data), sha256(data).hexdigest()
        except MeasurementFailed as failed:
            run.finding = failed.finding
        except StopRun as stopped:
            run.finding = RunFinding(Failure.STOPPED, Phase.TRAINING, str(stopped))
        except UntrustedResult as error:
            run.finding = RunFinding(Failure.BAD_OUTPUT, Phase.TRAINING, error.problem)
        except (TrainerError, OSError) as error:
            run.finding = RunFinding(Failure.HOST, Phase.TRAINING, problem_of(error))
        return run

    def _prove(
        self,
        graph: Path,
        rows: Tokens,
        claimed: Losses,
        scored: npt.NDArray[np.bool_],
        count: int,
        seconds: dict[Phase, float],
        reference: Reference | None,
    ) -> ProbeReport:
        """Draw the probes, now that the claim is fixed, and compare. MeasurementFailed."""
        random = np.random.default_rng(secrets.randbits(256))
        incumbent = None if reference is None else reference.losses.reshape(claimed.shape)
        draw = scoring.draw(
            claimed,
            incumbent,
            scored,
            count,
            random,
            uniform_share=self._policy.uniform_share,
            confidence=self._policy.confidence,
        )
        row, cut = draw.positions.T
        inputs = scoring.conceal(rows, draw.positions, self.facts.vocabulary, random)
        shown = np.concatenate([cut[:, None].astype(np.int32), inputs], axis=1)
        logits = self._run_graph(Phase.PROBES, graph, shown, self.facts.vocabulary, seconds, reference)
        if not np.isfinite(logits).all():
            raise MeasurementFailed(Failure.NON_FINITE, Phase.PROBES, "a logit is not finite")
        proven = scoring.cross_entropy(logits, rows[row, cut + 1])
        said = claimed[row, cut].astype(np.float64)
        delta = proven - said
        gain = draw.gain_bound
        if gain is not None and incumbent is not None:
            gain /= float(incumbent[scored].sum(dtype=np.float64))
        probes = zip(row.tolist(), cut.tolist(), said.tolist(), proven.tolist(), strict=True)
        return ProbeReport(
            tuple(Probe(*probe) for probe in probes),
            float(delta.mean()),
            float(delta[np.abs(delta).argmax()]),
            gain,
            draw.share_bound,
        )

    def _run_graph(
        self,
        phase: Phase,
        graph: Path,
        inputs: Tokens,
        columns: int,
        seconds: dict[Phase, float] | None,
        reference: Reference | None,
    ) -> Losses:
        """Run inside_graph.py on int32 (N, T + 1) in a fresh sandbox: float32 (N, columns), of exact size."""
        script, size = _HERE / "inside_graph.py", 4 * len(inputs) * columns
        with tempfile.NamedTemporaryFile(prefix="rows-") as file:
            file.write(inputs.astype("<i4").tobytes())
            file.flush()
            sizes = map(str, (len(inputs), self.facts.batch, self.facts.length, self.facts.vocabulary))
            files = ["{job}/" + name for name in (script.name, _GRAPH, "rows.i32")]
            try:
                with self._sandbox.start(
                    [str(self._environment.python), "-I", files[0], phase, *files[1:], *sizes],
                    limits=self._limits(self._policy.evaluation_limit(phase, reference)),
                    tools=interpreter_prefixes(self._environment.python),
                    mounts=[
                        Mount(script, script.name),
                        Mount(graph, _GRAPH),
                        Mount(Path(file.name), "rows.i32"),
                    ],
                ) as job:
                    outcome = job.wait()
                    if seconds is not None:
                        seconds[phase] = outcome.seconds
                    for message in job.messages():
                        refuse(message.line, phase)
                    if (outcome.kind, outcome.exit_code) != ("exited", 0):
                        raise ended(outcome, phase)
                    data = job.result("out.f32", size)
            except MeasurementFailed:
                raise
            except UntrustedResult as error:
                raise MeasurementFailed(Failure.BAD_OUTPUT, phase, error.problem) from error
            except (TrainerError, OSError) as error:
                raise MeasurementFailed(Failure.HOST, phase, problem_of(error)) from error
        if len(data) != size:
            raise MeasurementFailed(Failure.BAD_OUTPUT, phase, f"results of another size than {size} bytes")
        return np.frombuffer(data, "<f4").reshape(len(inputs), columns).astype(np.float32)

    def _limits(self, wall_seconds: float) -> JobLimits:
        policy = self._policy
        return JobLimits(
            wall_seconds,
            policy.memory_bytes,
            policy.processes,
            file_bytes=policy.scratch_bytes,
            scratch_bytes=policy.scratch_bytes,
            output_bytes=policy.output_bytes,
        )

    def _keep(self, graph: bytes) -> Path:
        folder = self._work / "graphs"
        folder.mkdir(exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".mlxfn", delete=False) as file:
            file.write(graph)
        return scratch.hold(Path(file.name))


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


def _silent(phase: Phase, line: str) -> None:
    """No progress."""
