"""The benchmark log of a proposal: numbers that were checked, in this client's own words.

A train.py that grew out of somebody else's may print what it read; so what it prints is not uploaded, only the numbers
that the protocol asks for, each finite and rounded. They are of one run by the protocol's own command. Where that
cannot be had on this machine, as on a Mac whose Metal refuses the harness's large evaluation, they are of the
confirming test's last run, and the log says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version

from common.text import printable
from miner.proposers.base import SCRIPT
from trainer.errors import UNFIT, EnvironmentNotReady, TrainerError
from trainer.judging.runs import ReplayRun
from trainer.machine.hardware import Fingerprint
from trainer.measurement.bench import Bench
from trainer.measurement.run import Run
from trainer.measurement.values import Failure
from trainer.project import metrics
from trainer.project.metrics import Metrics
from trainer.project.protocol import Metric, Protocol
from trainer.statistics.comparison import Arm

_PLAIN = "one run by the protocol's own command"
_OF_THE_MACHINE = (Failure.HOST, Failure.OUT_OF_MEMORY, Failure.REFUSED_MEMORY, UNFIT)
_MOST = 1e9  # of a secondary number


def benchmark_log(
    bench: Bench,
    files: Mapping[str, bytes],
    tried: Sequence[ReplayRun],
    on_line: Callable[[str], None],
    plain: Run | None = None,
) -> bytes:
    """The log for `files`, whose runs in the confirming test are `tried`, and whose `plain` run may be made already.
    EnvironmentNotReady if the script itself fails under the protocol's command.
    """
    why = bench.plain_problem(files)
    if not why:
        plain = plain or bench.plain_run(files, on_line)
        if plain.val_bpb is not None:
            found = metrics.extract(plain.log, bench.protocol)
            known = found.secondary if isinstance(found, Metrics) else {}
            return compose(files[SCRIPT], bench.machine, bench.protocol, Metrics(plain.val_bpb, known), _PLAIN)
        if plain.failure not in _OF_THE_MACHINE:
            raise EnvironmentNotReady(
                f"The winning train.py fails under the protocol's own command: {plain.told}", "Nothing was submitted."
            )
        why = plain.detail
    last = next((run for run in reversed(tried) if run.arm == Arm.CANDIDATE.value and run.val_bpb is not None), None)
    if last is None or last.val_bpb is None:
        raise EnvironmentNotReady(
            f"The protocol's own command cannot run here: {why}. No other run is on record.",
            "Nothing was submitted. Use `miner submit` without --claim.",
        )
    seconds = {} if last.train_seconds is None else {"training_seconds": last.train_seconds}
    source = f"a {bench.method} run of the confirming test, because the protocol's own command cannot run here: {why}"
    return compose(files[SCRIPT], bench.machine, bench.protocol, Metrics(last.val_bpb, seconds), source)


def compose(script: bytes, machine: Fingerprint, protocol: Protocol, found: Metrics, source: str) -> bytes:
    """The log's bytes. TrainerError if the protocol's pattern does not find the metric in any plain line."""
    primary = next((line for line in _ways(protocol.primary, found.primary, 6)), None)
    if primary is None:
        raise TrainerError(
            f"The protocol looks for {protocol.primary.name} in a form that is not plain.", "Ask the project's owner."
        )
    head = [
        f"benchmark log of train.py {sha256(script).hexdigest()}",
        f"written by openresearch-miner {version('openresearch-miner')} from numbers that it checked; what the script "
        "printed is not published",
        f"source: {printable(source, 300)}",
        f"machine: {machine.hardware_class}, {machine.platform}",
    ]
    others = [
        line
        for metric in protocol.secondary
        if (value := found.secondary.get(metric.name)) is not None and abs(value) <= _MOST
        for line in _ways(metric, value, 1)[:1]
    ]
    return "\n".join([*head, "---", primary, *others, ""]).encode()


def _ways(metric: Metric, value: float, digits: int) -> list[str]:
    """The plain lines with a number in which a metric's pattern finds it again."""
    lines = [f"{metric.name}{between}{value:.{digits}f}" for between in (": ", "=", " = ", " ", ":")]
    return [line for line in lines if isinstance(metrics.value([line], metric), float)]
