"""A train.py of the user's own, put through the confirming test and submitted."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

from miner.context.context import SessionContext
from miner.proposers.base import SCRIPT
from miner.staking import confirm, gates, stepping, submit
from miner.staking.benchmark import benchmark_log
from miner.staking.staking import forecast
from trainer.errors import TrainerError
from trainer.judging.policy import JudgePolicy
from trainer.project import bundle, source
from trainer.project.task import Task

_CAPS = JudgePolicy().source  # a verifier's


def submit_file(
    context: SessionContext, file: Path, claim: str | None, min_confidence: float = 0.99, *, force: bool = False
) -> tuple[int, Decimal]:
    """Submit a train.py of the user's; the proposal's id and the claimed metric.

    What no verifier could approve (`faults`) is refused. Without a claim the rest goes through the confirming test
    against the best on chain, and the claim is what of the measured gain is expected to last. With a claim it is the
    user's own stake and word, whatever it is if they `force` it.
    """
    script, metric = text(file), None if claim is None else _claimed(claim)
    files = bundle.overlay(context.task.files, {SCRIPT: script}, context.task.protocol.surface)
    code = gates.pack(files, context.task.protocol, context.task.protocol_bytes)
    bench, project, convention = context.bench, context.project, context.convention
    wrong = faults(context.task, files, metric, context.best_metric)
    if wrong and metric is None:
        raise TrainerError(f"{file} cannot be approved: {'; '.join(wrong)}.", "Nothing was submitted. Correct it.")
    if wrong and not force:
        raise TrainerError(
            f"{file} with a claim of {metric} cannot be approved: {'; '.join(wrong)}.",
            "Nothing was submitted. Correct it; to submit anyway, and lose the stake, add --force.",
        )
    if metric is None:
        policy = confirm.policy_at(min_confidence, bench.protocol.margin(float(context.best_metric)))
        done = confirm.confirm(
            bench,
            context.task,
            stepping.steps(context, context.task.incumbent),
            files,
            context.journal,
            number=-1,
            commit=sha256(script).hexdigest(),
            against=project.current_best_code_hash.hex(),
            policy=policy,
            view=context.dashboard,
        )
        if not done.passed or done.delta is None:
            raise TrainerError(
                f"{file} did not pass the confirming test: {done.reason}. Nothing was submitted.",
                "To submit anyway, use --claim VALUE (you will probably lose the stake).",
            )
        with context.dashboard.step("one run by the protocol's own command", bench.usual_seconds) as word:
            log = benchmark_log(bench, files, [entry.run for entry in done.runs], word)
        found = forecast(context, done, policy, code)
        metric, claimed = submit.anchored_score(project, convention, found.claim)
    else:
        claimed = convention.to_score(metric)
        context.dashboard.say(
            f"The claim of {metric} is not measured here. A verifier attests what it measures, and whether the claim "
            "is far from it.",
            style="yellow",
        )
        gates.warn(code, context)
        log = f"unmeasured claim\n---\n{context.task.protocol.primary.name}: {metric}\n".encode()
    submit.reconcile(context.connection.client, context.wallet.pubkey(), project, context.journal)
    offer = submit.Offer(-1, code, log, claimed, context.goals.stake, context.reward_recipient)
    proposal = submit.submit(
        context.connection,
        context.wallet,
        project,
        offer,
        context.journal,
        machine=bench.machine,
        data_snapshot=bench.data_snapshot,
        say=context.dashboard.say,
        step=context.dashboard.step,
    )
    return proposal, metric


def text(file: Path) -> bytes:
    """A file's text; TrainerError if it is none that can be read."""
    try:
        script = file.read_bytes()
        script.decode()
    except UnicodeDecodeError as error:
        raise TrainerError(f"{file} is not UTF-8 text.", "Choose a train.py.") from error
    except OSError as error:
        raise TrainerError(f"Cannot read {file}: {error.strerror}.", "Choose a train.py.") from error
    return script


def require(file: Path, claim: str | None, *, force: bool) -> None:
    """TrainerError for what no project would take: said before one is opened, which takes minutes the first time."""
    if claim is not None:
        _claimed(claim)
    wrong = _not_python(text(file))
    if wrong and (claim is None or not force):
        raise TrainerError(f"{file} cannot be approved: {wrong}.", "Choose a train.py.")


def _not_python(script: bytes) -> str:
    try:
        ast.parse(script)
    except SyntaxError as error:
        return f"it is not Python (line {error.lineno}: {error.msg})"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"it is not Python ({error})"
    return ""


def faults(task: Task, files: Mapping[str, bytes], metric: Decimal | None, best: Decimal) -> list[str]:
    """Why no verifier could approve these files with this claim, if there is one, as far as that can be told without
    a run; pure."""
    found = [wrong] if (wrong := _not_python(files[SCRIPT])) else []
    if files == task.incumbent:
        found.append("it is the on-chain best itself")
    found += [f"{text[:1].lower()}{text[1:].rstrip('.')}" for text in source.problems(task.files, files, _CAPS)]
    if metric is not None and (metric >= best if task.minimize else metric <= best):
        found.append(f"the claim does not beat the on-chain best, {best}")
    return found


def _claimed(text: str) -> Decimal:
    """A claim given on the command line; TrainerError if it is not a number."""
    try:
        value = Decimal(text)
    except ArithmeticError:
        value = Decimal("nan")
    if not value.is_finite():
        raise TrainerError(f"{text!r} is not a number (for example 2.534).", "Correct --claim.")
    return value
