"""The bench: everything that is needed to measure a source tree of one project on this machine.

`open_bench` builds the bundle's locked environment, prepares or checks the data snapshot, probes the sandbox
and fingerprints the hardware. `Bench.measure` then runs one tree once. Miner and verifier measure through
the same bench, in one of two ways:

- **trusted**: trained in the sandbox, frozen, scored and probed by `trainer.measurement`; nothing that the
  candidate says counts. The only way for a verifier.
- **self-reported**: run as it is, the metric taken from its log by the protocol's regular expression. For a
  miner without a sandbox, whose code is its own, and for protocols whose harness cannot be stood in for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import ParamSpec

from common.files import locked
from common.resources import HARNESS
from common.text import error_line
from trainer import sandbox
from trainer.errors import STOPPED, UNFIT, EnvironmentNotReady
from trainer.machine import awake, environment, faults, hardware, scratch
from trainer.machine.environment import Environment
from trainer.machine.noise_file import load_noise, save_noise
from trainer.measurement import Measurement, Measurer, Phase, Reference, ScoringText, supports
from trainer.measurement.outcomes import FAULTS
from trainer.measurement.plain import evaluation_batch, too_large
from trainer.measurement.run import Run
from trainer.measurement.values import MOST_BPB, Failure
from trainer.project import metrics, protocol
from trainer.project.protocol import Protocol
from trainer.project.task import SCRIPT
from trainer.running import dataset, experiment
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

Say = Callable[[str], None]
_P = ParamSpec("_P")
TRUSTED, SELF_REPORTED = "trusted", "self-reported"
HOLDOUT = "holdout"  # folder of a home in which holdout text is, while somebody is scored on it


def _awake(make: Callable[_P, Run]) -> Callable[_P, Run]:
    """The same run on a machine that is kept from sleeping; left out if it slept anyway."""

    @wraps(make)
    def made(*args: _P.args, **more: _P.kwargs) -> Run:
        with awake.kept():
            before = awake.moment()
            run = make(*args, **more)
            return left_out(run, awake.slept(before, awake.moment()))

    return made


@dataclass(frozen=True, slots=True)
class Bench:
    """A project ready to be measured here. `files` is the pinned snapshot, `cache` its prepared data.

    `measurer` is there when measurement is trusted; `why_not` says why where it is not. `gpus` are the NVIDIA GPUs that
    may be used, where all are alike.
    """

    protocol: Protocol
    files: Mapping[str, bytes]
    environment: Environment
    cache: Path
    data_snapshot: str
    machine: hardware.Fingerprint
    home: Path
    isolation: str
    measurer: Measurer | None
    why_not: str
    gpus: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """How values are found, as attestations say it."""
        return TRUSTED if self.measurer else SELF_REPORTED

    @property
    def noise_key(self) -> str:
        """What a noise estimate belongs to: machine class, bundle, budget and method; trusted runs are salted."""
        budget = f"{self.protocol.execution.training_seconds:g}s"
        key = f"{self.machine.hardware_class}/{self.protocol.bundle_id}/{budget}/{self.method}"
        return f"{key}/salted" if self.measurer else key

    @property
    def usual_seconds(self) -> float:
        """How long a run takes before any was seen."""
        return self.protocol.execution.training_seconds * (1.5 if self.measurer else 1.2)

    def noise(self) -> NoiseRecord:
        """This machine's run-to-run noise for this project, as far as it is known."""
        return load_noise(self.home / "noise.json").get(self.noise_key, NoiseRecord())

    def learn_noise(self, groups: Sequence[Sequence[float]]) -> None:
        """Add groups of repeated runs, each of one unchanged script, to the estimate."""
        path = self.home / "noise.json"
        with locked(path.with_suffix(".lock")):  # a session and a verifier may share a home
            records = load_noise(path)
            records[self.noise_key] = records.get(self.noise_key, NoiseRecord()).update(groups)
            save_noise(path, records)

    def on_view(self, cache: Path) -> Bench:
        """The same bench on another folder of prepared data, such as one with text held out."""
        if self.measurer is None:
            return replace(self, cache=cache)
        return replace(self, cache=cache, measurer=self.measurer.on_data(cache))

    def each_gpu(self) -> tuple[Bench, ...]:
        """The same bench on each GPU of a machine that has several alike; elsewhere itself, alone."""
        if self.measurer is None or len(self.gpus) < 2:
            return (self,)
        return tuple(replace(self, measurer=self.measurer.on_gpu(gpu), gpus=(gpu,)) for gpu in self.gpus)

    @_awake
    def measure(
        self,
        arm: Arm,
        files: Mapping[str, bytes],
        on_line: Say | None = None,
        *,
        reference: Reference | None = None,
        holdout: ScoringText | None = None,
        budget_share: float = 1.0,
        salt: str = "",
    ) -> Run:
        """Run a tree once. A failing script is a value; TrainerError is for this machine's own faults. The machine is
        kept from sleeping; a run that it slept through anyway, or whose clock was set, has no value and is UNFIT.

        `on_line` may raise StopRun to end the run while it trains, which then has the failure STOPPED.
        `reference` is the incumbent's, which a candidate is held to; a trusted run is scored on `holdout` text too. It
        is told `budget_share` of the time budget, and `salt` is mixed into its seeds (`trainer.measurement.salts`).
        """
        if self.measurer is None:
            return self._self_reported(arm, files, on_line)

        def progress(phase: Phase, line: str) -> None:
            if on_line:
                on_line(line or str(phase))

        found = self.measurer.measure(
            files,
            grace=loose_grace(self.protocol),
            reference=reference,
            holdout=holdout,
            progress=progress,
            budget_share=budget_share,
            salt=salt,
        )
        self.measurer.discard(found)
        first = found.findings[0] if found.findings else None
        return Run(
            arm,
            found.val_bpb,
            str(first.failure) if first else "",
            first.detail if first else "",
            sum(found.seconds.values()),
            _memory(found, self.protocol),
            found.log.encode(),
            found,
            first.said if first else "",
        )

    def plain_problem(self, files: Mapping[str, bytes]) -> str:
        """Why a tree cannot run as the protocol says on this machine, as far as is known before it is tried; or ""."""
        if self.measurer is None:
            return ""
        facts = self.measurer.facts
        script = files.get(PurePosixPath(self.protocol.execution.cwd, SCRIPT).as_posix(), b"")
        return too_large(evaluation_batch(script), facts.length, facts.vocabulary, self.machine.buffer_bytes)

    @_awake
    def plain_run(self, files: Mapping[str, bytes], on_line: Say | None = None) -> Run:
        """Run a tree as the protocol says, its metric from its log: what a benchmark log records.

        In the sandbox where there is one: a train.py that grew out of somebody else's is somebody else's code.
        """
        if self.measurer is None:
            return self._self_reported(Arm.CANDIDATE, files, on_line)
        limit = self.protocol.execution.hard_timeout_seconds
        outcome = self.measurer.plain_run(
            files, seconds=limit, progress=lambda _, line: on_line(line) if on_line else None
        )
        log = experiment.Log(outcome.output)
        result: experiment.RunResult
        if outcome.kind == "killed_wall":
            result = experiment.Timeout(limit, outcome.seconds, log)
        elif (outcome.kind, outcome.exit_code) != ("exited", 0):
            result = experiment.Crash(outcome.exit_code, experiment.tail(log.data), outcome.seconds, log)
        else:
            result = experiment.read_result(outcome.seconds, log, self.protocol)
        return _as_run(Arm.CANDIDATE, result)

    def _self_reported(self, arm: Arm, files: Mapping[str, bytes], on_line: Say | None) -> Run:
        result = experiment.run_experiment(
            files,
            self.protocol,
            self.environment,
            cache=self.cache,
            scratch=self.home / "scratch",
            on_line=on_line,
        )
        return _as_run(arm, result)


def _as_run(arm: Arm, result: experiment.RunResult) -> Run:
    value, memory, failure, detail, said = None, None, "", "", ""
    match result:
        case experiment.Ok(metrics=found) if not 0 < found.primary < MOST_BPB:
            failure, detail = "out_of_range", f"{found.primary:.4g} bits per byte are no improvement on anything."
        case experiment.Ok(metrics=found):
            value, memory = found.primary, found.secondary.get("peak_vram_mb")
        case experiment.Crash(exit_code=code, trace=trace):
            fault = faults.of_exit(code, result.log.data)
            failure = str(FAULTS[fault.kind] if fault else Failure.CRASH)
            detail = f"It exited with status {code}" + (f": {fault.words}" if fault else "")
            said = error_line(trace) or "no output"
        case experiment.Timeout(limit=limit):
            failure, detail = "over_budget", f"It was killed after {limit:g} seconds."
        case experiment.NoMetric(reason=reason):
            failure, detail = "no_evaluation", f"It ended without a result: {reason}."
        case experiment.Stopped(reason=why):
            failure, detail = STOPPED, why
    return Run(arm, value, failure, detail, result.seconds, memory, result.log.data, None, said)


def left_out(run: Run, why: str) -> Run:
    """The run without its value where there is a reason: what happened to this machine says nothing of its code."""
    if not why:
        return run
    lost = f"; {run.val_bpb:.6f} val_bpb not counted" if run.val_bpb is not None else ""
    return replace(run, val_bpb=None, failure=UNFIT, detail=why + lost, measurement=None, said="")


def loose_grace(spec: Protocol) -> float:
    """Seconds over the budget after which a run is ended whatever it is: as long as the budget again, at least 20,
    within the protocol's hard timeout. Whether a run kept the budget is judged later, against the incumbent's runs.
    """
    budget = spec.execution.training_seconds
    return min(spec.execution.hard_timeout_seconds - budget, max(20.0, budget))


def _memory(found: Measurement, spec: Protocol) -> float | None:
    """The run's own figure of its peak memory in MB, where its log has one; it decides nothing."""
    block = metrics.summary(found.log.encode())
    for metric in spec.secondary:
        if metric.name == "peak_vram_mb" and not isinstance(block, metrics.Missing):
            value = metrics.value(block, metric)
            return None if isinstance(value, metrics.Missing) else value
    return None


def open_bench(
    protocol_bytes: bytes,
    files: Mapping[str, bytes],
    *,
    home: Path,
    say: Say,
    data_arguments: Sequence[str],
    expected_snapshot: str | None = None,
    trust_harness: bool = False,
    require_sandbox: bool = False,
    isolated: bool = True,
) -> Bench:
    """A bench for a project, with its environment and data ready.

    `expected_snapshot` is the id the project pins (None while a project is being created). Data is made by
    the snapshot's own prepare.py, which runs here unconfined: only if it is this repository's own file or
    `trust_harness` says that the user agreed; which data is there is found without running it. With
    `require_sandbox` a missing sandbox is refused, else it makes the bench self-reported; `isolated` False
    measures in the trusted way but without a sandbox.
    EnvironmentNotReady if something is missing or the data differs.
    """
    spec = protocol.parse(protocol_bytes)
    for folder in ("scratch", "measurement/graphs", HOLDOUT):
        scratch.sweep(home / folder)
    env = environment.prepare(files, home, cuda_major=hardware.cuda_major(), progress=say)
    cache = dataset.folder_of(home, spec.bundle_id, data_arguments)
    known = files.get("prepare.py") == HARNESS.read_bytes()
    identity = files.get("prepare.py", b"") + files.get("protocol.json", b"")
    snapshot = dataset.prepare(
        files,
        env,
        home / "harness" / sha256(identity).hexdigest()[:16],
        cache,
        data_arguments,
        say,
        allowed=known or trust_harness,
        expected=expected_snapshot,
        manifest=known,
    )
    if expected_snapshot and snapshot != expected_snapshot:
        raise EnvironmentNotReady(
            f"The project was measured on data snapshot {expected_snapshot[:16]}; the data in {cache} is "
            f"{snapshot[:16]}.",
            "Move that folder away to prepare it again; a snapshot depends on the Python version that made it.",
        )
    machine = hardware.fingerprint(env.packages)
    isolation, measurer, why_not = "none", None, ""
    try:
        if isolated:
            say("probing the sandbox")
            confined = sandbox.choose(cuda=machine.device == "cuda")
            sandbox.probe(confined, env.python)
        else:
            from trainer.sandbox.host import NoIsolation

            confined = NoIsolation()
        isolation = confined.name
        say("reading the validation rows")
        measurer = Measurer(confined, env, files, cache, spec, home / "measurement")
        if not supports(measurer.facts):
            why_not, measurer = measurer.facts.problem, None
        elif machine.device == "cuda" and (
            lacking := measurer.compile_kernels(f"{machine.hardware_class}, {machine.platform}", say)
        ):
            say(f"kernels are not kept, so that each run compiles its own ({lacking})")
    except EnvironmentNotReady as error:
        if require_sandbox:
            raise
        why_not = error.problem
    gpus = hardware.gpus() if machine.device == "cuda" else ()
    return Bench(spec, files, env, cache, snapshot, machine, home, isolation, measurer, why_not, gpus)
