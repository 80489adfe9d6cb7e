"""The process around the arithmetic: sandboxes, files and the clock. See the package for the argument."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence, Sized
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np

from trainer.errors import StopRun, TrainerError
from trainer.machine import environment as environments
from trainer.machine import scratch
from trainer.machine.environment import Environment
from trainer.measurement import facts as harness
from trainer.measurement import kernels, scoring
from trainer.measurement.claims import TextClaim
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
    PROBES,
    Failure,
    Measurement,
    MeasurementPolicy,
    Phase,
    Progress,
    Reference,
    RunFinding,
    Score,
    ScoringText,
)
from trainer.project import bundle
from trainer.project.protocol import Protocol
from trainer.sandbox import (
    Job,
    JobLimits,
    JobOutcome,
    LastWord,
    Mount,
    Sandbox,
    UntrustedResult,
    interpreter_prefixes,
)

_HERE: Final = Path(__file__).parent
_GRAPH: Final = "graph.mlxfn"
_PASSING: Final = (Failure.HOST, Failure.OUT_OF_MEMORY, Failure.REFUSED_MEMORY)  # of this hour, not of the code

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
        self._gpu: Mapping[str, str] = {}  # which of several GPUs is to be used, as CUDA takes it
        self._kernels: Path | None = None
        self._compiled: dict[str, bytes] | None = None  # by the runs of `compile_kernels`, while it runs
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.facts = harness.harness_facts(
            sandbox, environment, self._snapshot, self._harness, cache, work, self._policy
        )

    def compile_kernels(self, machine: str, say: Callable[[str], None] = lambda _: None) -> str:
        """Keep what MLX compiles for the pinned snapshot on this kind of machine, as a start for all later runs.

        Returns "", or why there is none: once, for the next openings of a bench need not find it out again.

        A GPU's kernels take CUDA up to a minute, anew in each process, as nothing of a run outlives it. So the
        snapshot is trained for a moment, its graph evaluated, and what that compiled is kept: by the pinned code and
        our own alone, never by a candidate. Each run begins with a copy of its own, which ends with it. The snapshot's
        author gains nothing: whatever the kept kernels could hold, the snapshot's files could as well.
        """
        self._require_support()
        name = kernels.key(self._snapshot, self._environment.packages_digest, machine)
        self._kernels = kernels.find(self._work, name)
        if self._kernels is not None or kernels.given_up(self._work, name):
            return ""
        say("compiling this GPU's kernels, which is done once")
        self._compiled = {}
        try:
            found = self.measure(
                {},
                grace=self._policy.evaluation_seconds,
                probes=1,
                budget_share=min(1.0, kernels.TRAINING_SECONDS / self.facts.budget_seconds),
            )
            self.discard(found)
            if not found.findings:
                self._kernels = kernels.keep(self._work, name, self._compiled)
            if self._kernels is None and not any(finding.failure in _PASSING for finding in found.findings):
                kernels.give_up(self._work, name)
            if found.findings:
                return f"{found.findings[0].failure}: {found.findings[0].detail}"
            return "" if self._kernels else "nothing was compiled, or it could not be written"
        finally:
            self._compiled = None

    def on_data(self, cache: Path) -> Measurer:
        """The same measurer over another view of the same data: other training text, the same validation rows."""
        other = copy(self)
        other._cache = cache
        return other

    def on_gpu(self, gpu: str) -> Measurer:
        """The same measurer on one GPU of several, by the name that CUDA_VISIBLE_DEVICES has for it."""
        other = copy(self)
        other._gpu = {"CUDA_VISIBLE_DEVICES": gpu}
        return other

    def measure(
        self,
        files: Mapping[str, bytes],
        *,
        grace: float,
        reference: Reference | None = None,
        probes: int = PROBES,
        holdout: ScoringText | None = None,
        progress: Progress | None = None,
        budget_share: float = 1.0,
        salt: str = "",
    ) -> Measurement:
        """Train `files`, freeze the model, claim and prove on the validation rows, and on `holdout` text with them.

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
        score, second = None, None
        if run.graph is not None:
            texts = [ScoringText(self.facts.rows, reference, probes), *([holdout] if holdout else [])]
            score, *others = self.score(run.graph, texts, progress=report)
            second = others[0] if others and not score.findings else None
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
            holdout=second,
        )

    def score(
        self, graph: Path, texts: Sequence[ScoringText], *, progress: Progress | None = None
    ) -> tuple[Score, ...]:
        """Claim and prove a graph of `measure` on texts together, a score for each.

        One process makes all claims and another shows all probes: the positions are drawn between the two, and a
        probe never shows its own target, whatever else that process sees. Fresh rows are probed like the others: a
        graph could be honest on known text only. Where the first text has a finding, the others have the same.
        """
        self._require_support()
        report, seconds, parts = progress or _silent, dict[Phase, float](), [self._part(text) for text in texts]
        first = parts[0]
        try:
            report(Phase.CLAIM, "")
            rows = np.concatenate([text.rows for text in texts])
            claims = self.claim(graph, rows, seconds, texts[0].reference)
            for part, losses in zip(parts, _split(claims, [text.rows for text in texts]), strict=True):
                part.take(losses, self.facts.token_bytes)
            if first.finding is None:
                report(Phase.PROBES, "")
                self._prove(graph, [part for part in parts if part.finding is None], seconds)
        except MeasurementFailed as failed:
            for part in parts:
                part.finding = part.finding or failed.finding
        return tuple(part.score(first.finding, seconds if part is first else {}) for part in parts)

    def _part(self, text: ScoringText) -> TextClaim:
        targets = text.rows[:, 1:]
        scored = self.facts.token_bytes[targets] > 0
        same = text.reference is None or text.reference.losses.size == targets.size
        if targets.shape[1] != self.facts.length or not scored.any() or not same:
            raise ValueError("score needs rows of T + 1 tokens, some with bytes, and the incumbent's losses on them")
        return TextClaim(text, scored)

    def claim(
        self,
        graph: Path,
        rows: Tokens,
        seconds: dict[Phase, float] | None = None,
        reference: Reference | None = None,
    ) -> Losses:
        """The graph's cross-entropies on `rows`, float32 (N, T). Only claimed, and not looked at.

        `seconds` gets the phase's duration. MeasurementFailed.
        """
        return self._run_graph(Phase.CLAIM, graph, rows, self.facts.length, seconds, reference)

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
            with self._start(
                self._argv,
                seconds,
                [
                    Mount(Path(folder, "code"), "code"),
                    *harness.cache_mounts(self._cache, harness.cache_files(self._cache)),
                ],
                harness.data_environment(),
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
                job = self._start(
                    self._argv,
                    budget,
                    [
                        Mount(Path(folder, "code"), "code"),
                        Mount(Path(folder, "harness"), "harness"),
                        *harness.cache_mounts(self._cache, visible),
                    ],
                    {
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
                    self._take_kernels(job)
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

    def _prove(self, graph: Path, parts: Sequence[TextClaim], seconds: dict[Phase, float]) -> None:
        """Draw the probes of all parts, now that the claims are fixed, and compare. MeasurementFailed."""
        random = np.random.default_rng(secrets.randbits(256))
        draws = [part.draw(random, self._policy) for part in parts]
        shown = []
        for part, draw in zip(parts, draws, strict=True):
            inputs = scoring.conceal(part.text.rows, draw.positions, self.facts.vocabulary, random)
            shown.append(np.concatenate([draw.positions[:, 1:].astype(np.int32), inputs], axis=1))
        width, reference = self.facts.vocabulary, parts[0].text.reference
        logits = self._run_graph(Phase.PROBES, graph, np.concatenate(shown), width, seconds, reference)
        for part, draw, answers in zip(parts, draws, _split(logits, shown), strict=True):
            part.compare(draw, answers, self._policy)

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
                with self._start(
                    [str(self._environment.python), "-I", files[0], phase, *files[1:], *sizes],
                    self._policy.evaluation_limit(phase, reference),
                    [Mount(script, script.name), Mount(graph, _GRAPH), Mount(Path(file.name), "rows.i32")],
                ) as job:
                    outcome = job.wait()
                    if seconds is not None:
                        seconds[phase] = outcome.seconds
                    for message in job.messages():
                        refuse(message.line, phase)
                    if (outcome.kind, outcome.exit_code) != ("exited", 0):
                        raise ended(outcome, phase)
                    data = job.result("out.f32", size)
                    self._take_kernels(job)
            except MeasurementFailed:
                raise
            except UntrustedResult as error:
                raise MeasurementFailed(Failure.BAD_OUTPUT, phase, error.problem) from error
            except (TrainerError, OSError) as error:
                raise MeasurementFailed(Failure.HOST, phase, problem_of(error)) from error
        if len(data) != size:
            raise MeasurementFailed(Failure.BAD_OUTPUT, phase, f"results of another size than {size} bytes")
        return np.frombuffer(data, "<f4").reshape(len(inputs), columns).astype(np.float32)

    def _take_kernels(self, job: Job) -> None:
        if self._compiled is not None:
            self._compiled |= job.results(kernels.FOLDER, kernels.MOST_FILES, kernels.MOST_BYTES)

    def _start(
        self,
        argv: Sequence[str],
        seconds: float,
        mounts: Sequence[Mount],
        env: Mapping[str, str] | None = None,
        *,
        cwd: str = ".",
        last_word: LastWord | None = None,
    ) -> Job:
        """A process in the sandbox, for so long at most, on this measurer's GPU and with the kernels that are kept."""
        policy = self._policy
        limits = JobLimits(
            seconds,
            policy.memory_bytes,
            policy.processes,
            file_bytes=policy.scratch_bytes,
            scratch_bytes=policy.scratch_bytes,
            output_bytes=policy.output_bytes,
        )
        return self._sandbox.start(
            argv,
            limits=limits,
            tools=interpreter_prefixes(self._environment.python),
            mounts=mounts,
            env={**(env or {}), **self._gpu},
            cwd=cwd,
            last_word=last_word,
            scratch=self._kernels,
        )

    def _keep(self, graph: bytes) -> Path:
        folder = self._work / "graphs"
        folder.mkdir(exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".mlxfn", delete=False) as file:
            file.write(graph)
        return scratch.hold(Path(file.name))


def _split(rows: Losses, parts: Sequence[Sized]) -> list[Losses]:
    """The rows of each part, which lie one after the other."""
    return np.split(rows, list(accumulate(map(len, parts)))[:-1])


def _silent(phase: Phase, line: str) -> None:
    """No progress."""
