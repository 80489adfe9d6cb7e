"""The bench: everything that is needed to measure a source tree of one project on this machine.

`open_bench` turns a project's artifacts (protocol, snapshot, benchmark: plain bytes) into a `Bench`: it
builds the bundle's locked environment, prepares or checks the data snapshot and fingerprints the
hardware. `Bench.measure` then runs one tree once. Miner and verifier measure through the same bench.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from trainer import comparison, environment, experiment, hardware, protocol, recipe
from trainer.comparison import Arm, NoiseRecord
from trainer.environment import Environment
from trainer.errors import EnvironmentNotReady
from trainer.protocol import Protocol
from trainer.trial import Run

Say = Callable[[str], None]
_PREPARE_SECONDS = 6 * 3600


@dataclass(frozen=True, slots=True)
class Bench:
    """A project ready to be measured here. `files` is the pinned snapshot, `cache` its prepared data."""

    protocol: Protocol
    files: Mapping[str, bytes]
    environment: Environment
    cache: Path
    data_snapshot: str
    machine: hardware.Fingerprint
    home: Path

    @property
    def noise_key(self) -> str:
        """What a noise estimate belongs to: machine class, bundle and budget."""
        budget = f"{self.protocol.execution.training_seconds:g}s"
        return f"{self.machine.hardware_class}/{self.protocol.bundle_id}/{budget}"

    def noise(self) -> NoiseRecord:
        """This machine's run-to-run noise for this project, as far as it is known."""
        return comparison.load_noise(self.home / "noise.json").get(self.noise_key, NoiseRecord())

    def learn_noise(self, groups: Sequence[Sequence[float]]) -> None:
        """Add groups of repeated runs, each of one unchanged script, to the estimate."""
        path = self.home / "noise.json"
        records = comparison.load_noise(path)
        records[self.noise_key] = records.get(self.noise_key, NoiseRecord()).update(groups)
        comparison.save_noise(path, records)

    def measure(self, arm: Arm, files: Mapping[str, bytes], on_line: Say | None = None) -> Run:
        """Run a tree once. A failing script is a value; TrainerError is for this machine's own faults."""
        result = experiment.run_experiment(
            files,
            self.protocol,
            self.environment,
            cache=self.cache,
            scratch=self.home / "scratch",
            on_line=on_line,
        )
        value, memory, failure, detail = None, None, "", ""
        match result:
            case experiment.Ok(metrics=found):
                value, memory = found.primary, found.secondary.get("peak_vram_mb")
            case experiment.Crash(exit_code=code, trace=trace):
                last = trace.strip().splitlines()[-1:] or ["no output"]
                failure, detail = "crash", f"It ended with status {code}: {last[0]}"
            case experiment.Timeout(limit=limit):
                failure, detail = "timeout", f"It was killed after {limit:g} seconds."
            case experiment.NoMetric(reason=reason):
                failure, detail = "no_metric", f"It ended without a result: {reason}."
        return Run(arm, value, failure, detail, result.seconds, memory, result.log.data)


def data_folder(home: Path, bundle_id: str, arguments: Sequence[str]) -> Path:
    """Where a project's data lies: AUTORESEARCH_CACHE, else the usual cache for the public dataset, else the home."""
    if given := os.environ.get("AUTORESEARCH_CACHE"):
        return Path(given).absolute()
    if arguments:
        return home / "data" / sha256(bundle_id.encode()).hexdigest()[:16]
    return Path.home() / ".cache" / "autoresearch"


def open_bench(
    protocol_bytes: bytes,
    files: Mapping[str, bytes],
    *,
    home: Path,
    say: Say,
    data_arguments: Sequence[str],
    expected_snapshot: str | None = None,
    trust_harness: bool = False,
) -> Bench:
    """A bench for a project, with its environment and data ready.

    `expected_snapshot` is the id the project pins (None while a project is being created). Data is made by
    the snapshot's own prepare.py, which runs here unconfined: only if it is this repository's own file or
    `trust_harness` says that the user agreed. EnvironmentNotReady otherwise, or where the data differs.
    """
    spec = protocol.parse(protocol_bytes)
    env = environment.prepare(files, home, cuda_major=hardware.cuda_major(), progress=say)
    cache = data_folder(home, spec.bundle_id, data_arguments)
    known = files.get("prepare.py") == (recipe.ROOT / "prepare.py").read_bytes()
    snapshot = prepare_data(files, env, cache, data_arguments, say, allowed=known or trust_harness)
    if expected_snapshot and snapshot != expected_snapshot:
        raise EnvironmentNotReady(
            f"The project was measured on the data snapshot {expected_snapshot[:16]}, the data in {cache} is "
            f"{snapshot[:16]}.",
            "Move that folder away to prepare it again; a snapshot depends on the Python version that made it.",
        )
    return Bench(spec, files, env, cache, snapshot, hardware.fingerprint(), home)


def prepare_data(
    files: Mapping[str, bytes],
    env: Environment,
    cache: Path,
    arguments: Sequence[str],
    say: Say,
    *,
    allowed: bool,
) -> str:
    """Run the harness's own preparation unless it is done; the data snapshot id."""
    harness = cache / "harness" / sha256(files["prepare.py"] + files["protocol.json"]).hexdigest()[:16]
    if not (harness / "prepare.py").exists():
        from trainer import bundle

        bundle.write_tree({name: files[name] for name in ("prepare.py", "protocol.json")}, harness)
    ready = _harness(env, harness, cache, ["--snapshot-id"], None)
    if ready.returncode == 0:
        return ready.stdout.strip()
    if not allowed:
        raise EnvironmentNotReady(
            f"The data of this project is not prepared in {cache}, and its prepare.py is not the one of this "
            "repository.",
            f"Read {harness / 'prepare.py'} and run it, or allow it with --trust-harness.",
        )
    made = _harness(env, harness, cache, list(arguments), say)
    if made.returncode != 0:
        last = made.stdout.strip().splitlines()[-1:] or ["no output"]
        raise EnvironmentNotReady(f"prepare.py failed: {last[0]}", "Mend that and run the command again.")
    return _harness(env, harness, cache, ["--snapshot-id"], None).stdout.strip()


def _harness(
    env: Environment, folder: Path, cache: Path, arguments: Sequence[str], say: Say | None
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "AUTORESEARCH_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    command = [str(env.python), "prepare.py", *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if say else subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    lines: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line)
            if say and line.strip():
                say(line.strip())
        code = process.wait(_PREPARE_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(command, code, "".join(lines[-100:]))
