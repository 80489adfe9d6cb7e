"""The benchmark log: numbers in our words, of the protocol's own run or, where that cannot be had, of a trusted one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from miner.staking.benchmark import benchmark_log, compose
from tests.miner.fakes import MACHINE
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.judging.runs import ReplayRun
from trainer.measurement.plain import evaluation_batch, too_large
from trainer.measurement.run import Run
from trainer.project import metrics, protocol, recipe
from trainer.project.metrics import Metrics
from trainer.statistics.comparison import Arm

PROTOCOL = protocol.parse(recipe.load("smoke").files["protocol.json"])
FILES = {"train.py": b"print()"}
LOG = b"API_KEY=sk-123\n---\nval_bpb: 2.530000\npeak_vram_mb: 512.0\nleak: sk-123\n"
TRACEBACK = b"Traceback\nRuntimeError: [metal::malloc] Attempting to allocate 17179869184 bytes\n"
TRIED = [
    ReplayRun("incumbent", 2.9, None, 6.1, 9.0, "", "", "", None, None, None),
    ReplayRun("candidate", 2.6, None, 6.2, 9.0, "", "", "", None, None, None),
    ReplayRun("candidate", 2.5, None, 6.3, 9.0, "", "", "", None, None, None),
    ReplayRun("candidate", None, None, None, 9.0, "unfit", "It slept.", "", None, None, None),
]


@dataclass
class Plain:
    """A bench whose plain run gives `run`, unless there is a `problem` with it beforehand."""

    run: Run
    problem: str = ""
    machine: Any = MACHINE
    protocol: Any = PROTOCOL
    method: str = "trusted"

    def plain_problem(self, files: object) -> str:
        return self.problem

    def plain_run(self, files: object, say: object) -> Run:
        assert not self.problem
        return self.run


def log_of(run: Run, problem: str = "", tried: list[ReplayRun] = TRIED) -> str:
    return benchmark_log(cast("Any", Plain(run, problem)), FILES, tried, print).decode()


GOOD = Run(Arm.CANDIDATE, 2.53, "", "", 9.0, 512.0, LOG)


def test_it_holds_numbers_and_nothing_that_the_script_said() -> None:
    text = log_of(GOOD)
    found = metrics.extract(text.encode(), PROTOCOL)
    assert isinstance(found, Metrics)
    assert found.primary == 2.53
    assert found.secondary["peak_vram_mb"] == 512.0
    assert "sk-123" not in text
    assert "source: one run by the protocol's own command" in text
    assert "cpu-made-up-8c, Linux" in text


@pytest.mark.parametrize(
    ("failure", "problem"),
    [("refused_memory", ""), ("out_of_memory", ""), ("host", ""), ("unfit", ""), ("", "it evaluates 256 rows at once")],
)
def test_where_the_plain_run_cannot_be_had_it_is_of_the_confirming_tests_and_says_so(
    failure: str, problem: str
) -> None:
    text = log_of(replace(GOOD, val_bpb=None, failure=failure, detail="Metal refused it", log=TRACEBACK), problem)
    found = metrics.extract(text.encode(), PROTOCOL)
    assert isinstance(found, Metrics)
    assert found.primary == 2.5  # the last run with a value
    assert "a trusted run of the confirming test, because the protocol's own command cannot run here" in text
    assert (problem or "Metal refused it") in text
    assert "Traceback" not in text


def test_a_script_that_fails_by_itself_is_not_published() -> None:
    failed = Run(Arm.CANDIDATE, None, "crash", "It exited with status 1", 9.0, None, TRACEBACK, said="ValueError")
    with pytest.raises(EnvironmentNotReady, match="It exited with status 1: ValueError"):
        log_of(failed)
    with pytest.raises(EnvironmentNotReady, match="No other run"):
        log_of(failed, "it evaluates 256 rows at once", [])


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        (r"^val_bpb:\s+([0-9]+(?:\.[0-9]+)?)$", "val_bpb: 2.530000"),
        (r"^val_bpb=([0-9.]+)$", "val_bpb=2.530000"),
        (r"^val_bpb ([0-9.]+)$", "val_bpb 2.530000"),
        (r"^the result is ([0-9.]+)$", None),
    ],
)
def test_the_protocols_own_pattern_finds_the_number(pattern: str, written: str | None) -> None:
    import re

    other = replace(PROTOCOL, primary=replace(PROTOCOL.primary, pattern=re.compile(pattern)))
    if written is None:
        with pytest.raises(TrainerError, match="not plain"):
            compose(b"", MACHINE, other, Metrics(2.53, {}), "x")
    else:
        assert written in compose(b"", MACHINE, other, Metrics(2.53, {}), "x").decode().splitlines()


# --- found out beforehand ---


@pytest.mark.parametrize(
    ("source", "batch"),
    [
        (b"FINAL_EVAL_BATCH_SIZE = 256\nval_bpb = evaluate_bpb(model, tokenizer, FINAL_EVAL_BATCH_SIZE)\n", 256),
        (b"import prepare\nprepare.evaluate_bpb(model, tokenizer, 32)\n", 32),
        (b"B = 8\nevaluate_bpb(model, tokenizer, batch_size=B)\n", 8),
        (b"evaluate_bpb(model, tokenizer, size())\n", None),
        (b"evaluate_bpb(model, tokenizer, -1)\n", None),
        (b"evaluate_bpb(model, tokenizer, True)\n", None),
        (b"evaluate_bpb(model)\n", None),
        (b"def (", None),
        (b"\xff\x00", None),
        (b"(" * 10_000, None),
    ],
)
def test_the_batch_that_a_script_evaluates_with(source: bytes, batch: int | None) -> None:
    assert evaluation_batch(source) == batch


@pytest.mark.parametrize(
    ("batch", "buffer", "words"),
    [
        (256, 14_302_248_960, "an array of 17.2 GB, and Metal allows 14.3 GB"),  # a Mac with 24 GB
        (256, 77_309_411_328, ""),
        (256, 0, ""),  # unknown
        (None, 14_302_248_960, ""),
        (8, 14_302_248_960, ""),
    ],
)
def test_whether_the_live_projects_evaluation_fits(batch: int | None, buffer: int, words: str) -> None:
    found = too_large(batch, 2048, 8192, buffer)
    assert words in found
    assert bool(found) is bool(words)
