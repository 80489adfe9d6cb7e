"""What a job's log, its channel and its end mean for the measurement; all of it is the candidate's word."""

from __future__ import annotations

import json
from typing import Final

from common.text import error_line, printable
from trainer.errors import TrainerError
from trainer.machine import faults
from trainer.measurement.values import Failure, Phase, Progress, RunFinding
from trainer.sandbox import Job, JobOutcome
from trainer.sandbox.job import KILL_SECONDS

_LOOK_SECONDS: Final = 0.25
_LINES, _LINE_BYTES = 64, 64 << 10  # of the log in one look: what comes faster is skipped, the newest is shown
_EVENTS: Final = {
    "not_exportable": (Failure.NOT_EXPORTABLE, "the model could not be frozen"),
    "bad_output": (Failure.BAD_OUTPUT, "the graph does not compute what it must"),
}
FAULTS: Final = {"driver": Failure.HOST, "refused": Failure.REFUSED_MEMORY, "killed": Failure.OUT_OF_MEMORY}


class MeasurementFailed(TrainerError):
    """A phase that ended without its result; `finding` says why."""

    def __init__(self, failure: Failure, phase: Phase, detail: str, said: str = "") -> None:
        super().__init__(f"The {phase} failed ({failure}): {detail}.")
        self.finding = RunFinding(failure, phase, detail, said)


def show_lines(job: Job, report: Progress) -> None:
    """Report the newest lines of a running job's log, at most _LINES and _LINE_BYTES a look, until it is over.

    Who measures is the job's own thread, which has killed the tree before this one looks again.
    """
    shown = 0
    while True:
        over = job.over(_LOOK_SECONDS)
        new, end = job.output_since(shown, _LINE_BYTES)
        whole = max(new.rfind(b"\n"), new.rfind(b"\r")) + 1
        for line in new[:whole].splitlines()[-_LINES:]:
            report(Phase.TRAINING, printable(line[: _LINE_BYTES // _LINES].decode(errors="replace"), 500))
        shown = end - (len(new) - whole)
        if over:
            return


def is_last(line: bytes) -> bool:
    """Whether a line of the channel says that the graph is there, or why there is none."""
    return _event(line)[0] in ("frozen", *_EVENTS)


def announced(outcome: JobOutcome) -> float:
    """Seconds from the start to the word that the graph is there. MeasurementFailed when none came in order."""
    if outcome.last is None or outcome.kind not in ("finished", "killed_late"):
        raise ended(outcome, Phase.TRAINING)
    refuse(outcome.last.line, Phase.TRAINING)
    if outcome.kind == "killed_late":
        detail = f"some of its processes still ran {KILL_SECONDS * 1000:.0f} ms after the graph was reported ready"
        raise MeasurementFailed(Failure.OVER_BUDGET, Phase.TRAINING, detail)
    return outcome.last.seconds


def _event(line: bytes) -> tuple[str | None, str]:
    """The event and the detail in a channel line; (None, "") for what nobody should send."""
    try:
        word = json.loads(line)
        return str(word["event"]), str(word.get("detail", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, ""


def refuse(line: bytes, phase: Phase) -> None:
    """MeasurementFailed when a channel line is a refusal."""
    event, detail = _event(line)
    if event in _EVENTS:
        failure, words = _EVENTS[event]
        raise MeasurementFailed(failure, phase, words, printable(detail, 500))


def ended(outcome: JobOutcome, phase: Phase) -> MeasurementFailed:
    """Why a job ended without its result: whose fault it is, in words of ours."""
    if outcome.kind == "killed_wall" and phase is Phase.TRAINING:
        detail = f"stopped after {outcome.seconds:.1f} s without a graph"
        return MeasurementFailed(Failure.OVER_BUDGET, phase, detail)
    if outcome.kind != "exited":
        detail = f"{outcome.kind.replace('_', ' ')} after {outcome.seconds:.1f} s"
        memory = outcome.kind == "killed_memory"
        return MeasurementFailed(Failure.OUT_OF_MEMORY if memory else Failure.OVER_RESOURCES, phase, detail)
    if outcome.exit_code == 0:
        return MeasurementFailed(Failure.NO_EVALUATION, phase, "it ended without calling evaluate_bpb")
    said = error_line(log_text(outcome.output)) or "no output"
    fault = faults.of_exit(outcome.exit_code, outcome.output)
    failure = FAULTS[fault.kind] if fault else Failure.CRASH
    detail = f"exit status {outcome.exit_code}" + (f": {fault.words}" if fault else "")
    return MeasurementFailed(failure, phase, detail, printable(said, 500))


def problem_of(error: TrainerError | OSError) -> str:
    """What went wrong on this machine, in a sentence."""
    return error.problem if isinstance(error, TrainerError) else f"This machine failed: {error}."


def require_in_time(seconds: float, allowed: float) -> None:
    """MeasurementFailed for a graph that came late."""
    if seconds > allowed:
        detail = f"the graph came after {seconds:.1f} s, {allowed:.1f} s were allowed"
        raise MeasurementFailed(Failure.OVER_BUDGET, Phase.TRAINING, detail)


def log_text(output: bytes) -> str:
    """A log as text, whatever its bytes."""
    return output.decode(errors="replace")
