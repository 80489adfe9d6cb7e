"""What a candidate's runs are held to: the incumbent's last run on the same rows, which therefore comes first."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from common.terminal import View
from tests import local
from tests.trainer.judging.fakes import FakeMeasurer, bench_of
from trainer.judging import holdout
from trainer.judging.holdout import HoldoutText
from trainer.judging.judge import judge
from trainer.judging.policy import HoldoutPolicy, JudgePolicy
from trainer.judging.replay import HoldoutRows, _at_once, _call_seconds, draw_holdout, replay
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import GainOutcome
from trainer.machine import environment, scratch
from trainer.measurement.bench import HOLDOUT, Bench, open_bench
from trainer.measurement.facts import HarnessFacts
from trainer.measurement.run import Run
from trainer.measurement.values import Measurement, Phase, Reference
from trainer.project import task
from trainer.statistics.comparison import Arm
from trainer.statistics.error_rates import incumbent_lead
from trainer.statistics.noise import NoiseRecord

TASK = task.read(local.artifacts())
NOISE = NoiseRecord(20 * 0.002**2, 20.0)


class Noting(FakeMeasurer):
    """Notes what each run and each second score was held to."""

    def __init__(self) -> None:
        super().__init__(lambda source, _: 2.5 if source == local.TRAIN else 2.4)
        self.held: list[tuple[str, Reference | None, Reference | None]] = []

    def measure(self, files: Any, **options: Any) -> Measurement:
        arm = "incumbent" if files["train.py"] == local.TRAIN else "candidate"
        self.held.append((arm, options["reference"], options["holdout"].reference))
        return super().measure(files, **options)


class Crowded(FakeMeasurer):
    """Notes on which GPU a run was made, under which salt, and how many were at once."""

    def __init__(self) -> None:
        super().__init__(lambda source, _: 2.5 if source == local.TRAIN else 2.4)
        self.lock, self.now, self.most, self.made = threading.Lock(), 0, 0, list[tuple[str, str, str]]()

    def on_gpu(self, gpu: str) -> FakeMeasurer:
        return cast("FakeMeasurer", SimpleNamespace(measure=partial(self.at, gpu), discard=self.discard))

    def at(self, gpu: str, files: Any, **options: Any) -> Measurement:
        arm = "incumbent" if files["train.py"] == local.TRAIN else "candidate"
        assert (options["reference"] is not None) is (arm == "candidate")
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
            self.made.append((gpu, arm, options["salt"]))
            return FakeMeasurer.measure(self, files, **options)

    def measure(self, files: Any, **options: Any) -> Measurement:
        return self.at("any", files, **options)


@pytest.mark.parametrize("df", [0.0, 5.0, 20.0])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_pair_runs_side_by_side_where_that_is_asked_for(
    df: float, side_by_side: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a verifier, whatever GPUs there are: a candidate gains by what slows the run beside it."""
    measurer, noise = Crowded(), NoiseRecord(df * 0.002**2, df)
    bench = replace(bench_of(TASK, tmp_path, measurer, monkeypatch), gpus=("0", "1"))
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"better"}}
    rows, policy, view = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32)), JudgePolicy(), View(quiet=True)
    for seed in range(6):  # of the order of runs
        measurer.made, measurer.most = [], 0
        runs = replay(bench, trees, rows, policy=policy, noise=noise, seed=seed, view=view, side_by_side=side_by_side)
        assert measurer.most == (2 if side_by_side else 1)
        assert {gpu for gpu, _, _ in measurer.made} == ({"0", "1"} if side_by_side else {"any"})
        assert len(measurer.made) == len(runs) <= 11
        theirs, ours = ([salt for _, of, salt in measurer.made if of == arm] for arm in ("incumbent", "candidate"))
        lead = incumbent_lead(df)
        assert abs(len(theirs) - len(ours) - lead) <= 1
        paired = theirs[lead:]
        assert len(paired) >= 3
        assert all(mine == other for mine, other in zip(ours, paired, strict=False))  # each has its pair's
        assert len(set(theirs)) == len(theirs)


@pytest.mark.parametrize(
    ("ahead", "room", "begun", "expected"),
    [
        ("icic", 2, False, "i"),
        ("cici", 2, True, "ci"),
        ("ccii", 2, True, "ci"),  # the second pair was drawn the other way round
        ("ciic", 2, True, "ci"),
        ("iicic", 2, True, "ic"),
        ("iiicic", 2, True, "i"),  # of an incumbent that leads by more
        ("cici", 1, True, "c"),
        ("c", 2, True, "c"),
    ],
)
def test_which_runs_go_side_by_side(ahead: str, room: int, begun: bool, expected: str) -> None:
    arms = {"i": Arm.INCUMBENT, "c": Arm.CANDIDATE}
    found = _at_once([arms[one] for one in ahead], room, begun)
    assert "".join(arm.value[0] for arm in found) == expected


@pytest.mark.parametrize("side_by_side", [False, True])
def test_another_run_is_made_beside_the_first_one(
    side_by_side: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, on the GPU that is idle then; its value is nobody's."""
    bench = bench_of(TASK, tmp_path, FakeMeasurer(lambda source, _: 2.5 if source == local.TRAIN else 2.4), monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"better"}}
    happened = list[str]()

    def meanwhile(gpu: str, _: Any) -> Run:
        happened.append(gpu)
        return Run(Arm.CANDIDATE, 9.9, "", "", 1.0, None, b"")

    def measured(*done: ReplayRun) -> list[ReplayRun]:
        return replay(
            replace(bench, gpus=("0", "1")),
            trees,
            HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32)),
            policy=JudgePolicy(),
            noise=NOISE,
            seed=1,
            view=View(quiet=True),
            done=done,
            on_run=lambda run: happened.append(run.arm),
            side_by_side=side_by_side,
            meanwhile=meanwhile,
        )

    runs = measured()
    assert happened[:2] == (["1", "incumbent"] if side_by_side else ["incumbent", "candidate"])
    assert happened.count("1") == side_by_side
    assert 9.9 not in [run.val_bpb for run in runs]
    assert len(measured(*runs[:1])) == len(runs)
    assert happened.count("1") == side_by_side


def test_holdout_text_goes_with_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is downloaded or cut for a check is gone when the check ends or fails."""
    bench = bench_of(TASK, tmp_path, FakeMeasurer(lambda *_: 2.4), monkeypatch)
    used: list[Path] = []

    def drawn(cache: Path, folder: Path, *_: Any, **__: Any) -> HoldoutText:
        used.append(folder)
        (folder / "shard.parquet").write_bytes(bytes(1 << 20))
        return HoldoutText("made up", ("text",), cache, "cc" * 32)

    monkeypatch.setattr(holdout, "holdout_text", drawn)
    with draw_holdout(bench, HoldoutPolicy(), bytes(32), public=True, say=print) as (rows, _):
        assert rows is not None
        assert (used[0] / "shard.parquet").exists()
        scratch.sweep(tmp_path / HOLDOUT)
        assert used[0].exists()
    with (
        pytest.raises(KeyboardInterrupt),
        draw_holdout(bench, HoldoutPolicy(), bytes(32), public=True, say=print),
    ):
        raise KeyboardInterrupt
    assert len(set(used)) == 2
    assert not list((tmp_path / HOLDOUT).iterdir())


def test_what_a_kill_left_goes_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, young = tmp_path / HOLDOUT / "left", tmp_path / HOLDOUT / "young"
    for folder in (left, young):
        folder.mkdir(parents=True)
        (folder / "shard.parquet").write_bytes(bytes(1 << 20))
    os.utime(left, (1, 1))
    monkeypatch.setattr(environment, "prepare", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_bench(TASK.protocol_bytes, TASK.files, home=tmp_path, say=print, data_arguments=())
    assert not left.exists()
    assert young.exists()  # its maker may only just have made it


class Curve(FakeMeasurer):
    """The same model in both arms, better by 0.31 bpb per unit of ln(seconds); a candidate takes `extra` seconds."""

    def __init__(self, extra: float, *, stubborn: bool = False) -> None:
        super().__init__(lambda *_: 2.4)
        self.extra, self.stubborn, self.short = extra, stubborn, 0

    def measure(self, files: Any, **options: Any) -> Measurement:
        share = options["budget_share"]
        self.short += share < 1
        extra = 0.0 if files["train.py"] == local.TRAIN else self.extra
        told = 6.0 if self.stubborn else 6.0 * share
        self.seconds = told + 0.5 + extra
        self.script = lambda *_: 2.4 - 0.31 * math.log((told + extra) / 6.0)
        return super().measure(files, **options)


@pytest.mark.parametrize(
    ("extra", "stubborn", "short_runs"), [(2.0, False, 1), (1.0, False, 1), (0.0, False, 0), (2.0, True, 1)]
)
def test_training_into_the_grace_does_not_pay(
    extra: float, stubborn: bool, short_runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 s instead of 6, which the grace allows; the incumbent may even refuse to be hurried."""
    measurer = Curve(extra, stubborn=stubborn)
    bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"slower"}}
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32))
    policy = JudgePolicy()
    runs = replay(bench, trees, rows, policy=policy, noise=NOISE, seed=3, view=View(quiet=True))
    found = judge((), runs, noise=NOISE, seed=3, budget_seconds=6.0, method="trusted", policy=policy)
    assert not found.evidence.findings  # it is within the grace
    assert found.evidence.comparison in (GainOutcome.NOT_BETTER, GainOutcome.UNDECIDED)
    assert measurer.short == short_runs
    restored = [ReplayRun.from_json(json.loads(json.dumps(run.as_json()))) for run in runs]
    assert restored == runs
    for run in runs:
        assert (run.overtime is not None) == (run.arm == "candidate" and extra > 0)
        if run.overtime is not None:
            assert run.overtime["seconds"] == pytest.approx(extra)
            assert run.overtime["bpb"] >= 0.31 * math.log1p(extra / 6.0) - 0.01


class Uneven(FakeMeasurer):
    """Two GPUs on which each run of the incumbent takes longer to start than the one before."""

    def __init__(self) -> None:
        super().__init__(lambda source, _: 2.5 if source == local.TRAIN else 2.4)
        self.shares, self.lock = list[float](), threading.Lock()

    def measure(self, files: Any, **options: Any) -> Measurement:
        with self.lock:
            self.shares.append(options["budget_share"])
            began = self.runs.count(files["train.py"])
            self.seconds = 6.5 + began if files["train.py"] == local.TRAIN else 7.4 + began
            return super().measure(files, **options)


def test_a_candidate_has_the_time_of_the_incumbents_run_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else chance alone would charge it, and what time is worth take half a run to find out."""
    measurer = Uneven()
    bench = replace(bench_of(TASK, tmp_path, measurer, monkeypatch), gpus=("0", "1"))
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"better"}}
    rows, view = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32)), View(quiet=True)
    for seed in range(4):  # of the order of runs
        runs = replay(bench, trees, rows, policy=JudgePolicy(), noise=NOISE, seed=seed, view=view, side_by_side=True)
        assert not any(run.overtime for run in runs)
        assert set(measurer.shares) == {1.0}
        for place, run in enumerate(runs):  # a kill between the two runs of a pair leaves what the charge goes by
            theirs = [other.train_seconds or 0.0 for other in runs[:place] if other.arm == "incumbent"]
            assert run.arm == "incumbent" or (run.train_seconds or 0.0) <= max(theirs)
        measurer.runs.clear()


class Forging(Curve):
    """Beside `Curve`'s snapshot a best that knows a run on a share of the budget, and is worth `short` in it."""

    def __init__(self, extra: float, short: float) -> None:
        super().__init__(extra)
        self.said = short

    def measure(self, files: Any, **options: Any) -> Measurement:
        if files["train.py"] != b"best":
            return super().measure(files, **options)
        self.short, self.seconds = self.short + (options["budget_share"] < 1), 6.0 * options["budget_share"] + 0.5
        self.script = lambda *_: 2.4 if options["budget_share"] == 1 else self.said
        return FakeMeasurer.measure(self, files, **options)


@pytest.mark.parametrize(
    ("extra", "short"),
    [
        (
            2.0,
            2.4,
        ),  # as good in half the time: then time would be worth nothing, and an accomplice takes all of the grace
        (0.4, 9.0),  # hopeless in half the time: then a start that is slower by a moment would cost any gain
    ],
)
def test_no_best_says_what_time_is_worth(
    extra: float, short: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Forging(extra, short)
    bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
    trees = {
        Arm.INCUMBENT: {**TASK.files, "train.py": b"best"},
        Arm.CANDIDATE: {**TASK.files, "train.py": b"slower"},
    }
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32))
    runs = replay(bench, trees, rows, policy=JudgePolicy(), noise=NOISE, seed=3, view=View(quiet=True))
    charges = [run.overtime for run in runs if run.arm == "candidate"]
    assert measurer.short == 1
    for charge in charges:
        assert charge is not None
        assert charge["slope"] == pytest.approx(0.31, abs=0.02)


class Unrolled(FakeMeasurer):
    """A graph that goes on training in every call: each takes `more` seconds, and gives what these are worth."""

    def __init__(self, more: float) -> None:
        super().__init__(lambda *_: 2.4)
        self.more = more

    def measure(self, files: Any, **options: Any) -> Measurement:
        more = 0.0 if files["train.py"] == local.TRAIN else self.more
        self.script = lambda *_: 2.4 - 0.31 * math.log(options["budget_share"] * (1 + more / 6.0))
        self.seconds = 6.0 * options["budget_share"] + 0.5
        found = super().measure(files, **options)
        return replace(found, seconds={**found.seconds, Phase.CLAIM: 0.9 + more})  # 6 rows: one call


@pytest.mark.parametrize(("more", "charged"), [(0.0, False), (1.0, True)])
def test_training_in_the_graph_does_not_pay(
    more: float, charged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen graph keeps nothing from call to call: what it trains it trains in each, by whose time it is charged."""
    bench = bench_of(TASK, tmp_path, Unrolled(more), monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"unrolled"}}
    rows, policy = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32)), JudgePolicy()
    runs = replay(bench, trees, rows, policy=policy, noise=NOISE, seed=3, view=View(quiet=True))
    assert all(bool(run.overtime) is (charged and run.arm == "candidate") for run in runs)
    found = judge((), runs, noise=NOISE, seed=3, budget_seconds=6.0, method="trusted", policy=policy)
    assert found.evidence.comparison in (GainOutcome.NOT_BETTER, GainOutcome.UNDECIDED)
    assert [ReplayRun.from_json(json.loads(json.dumps(run.as_json()))) for run in runs] == runs


@pytest.mark.parametrize(
    ("claim", "probes", "seconds"),
    [
        (1.0, None, 1 / 64),  # 512 rows of both texts, 8 in a call
        (1.0, 1.0, 0.0),
        (1.5, 1.3, 0.2 / 16),  # 384 positions are probed
        (31.0, 30.8, 0.2 / 16),  # a compiler's half a minute in both
        (65.0, 49.0, 1.0),
    ],
)
def test_what_one_call_of_a_graph_takes(claim: float, probes: float | None, seconds: float) -> None:
    facts = HarnessFacts("", 6.0, "val.parquet", np.zeros((256, 9), np.int32), np.ones(16, np.int32))
    took = {Phase.CLAIM: claim} | ({} if probes is None else {Phase.PROBES: probes})
    run = Run(
        Arm.CANDIDATE, 2.4, "", "", 9.0, None, b"", Measurement(2.4, None, 6.0, None, None, "", "", (), seconds=took)
    )
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((256, 9), np.int32))
    found = _call_seconds(cast("Any", SimpleNamespace(facts=facts)), run, rows, HoldoutPolicy())
    assert found == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_candidate_is_held_to_the_incumbent_on_both_texts(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Noting()
    bench: Bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"better"}}
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32))
    runs = replay(bench, trees, rows, policy=JudgePolicy(), noise=NOISE, seed=seed, view=View(quiet=True))
    assert runs[0].arm == "incumbent"
    assert {arm for arm, _, _ in measurer.held} == {"incumbent", "candidate"}
    for arm, validation, other in measurer.held:
        if arm == "incumbent":
            assert validation is None
            assert other is None
        else:
            assert validation is not None
            assert other is not None
            assert other.losses.mean() == pytest.approx(validation.losses.mean() + 0.1 * math.log(2), abs=1e-4)


class Lottery(FakeMeasurer):
    """A script's luck is its seed's, unless a salt is mixed in: then it is the salt's, the same for both arms."""

    def __init__(self) -> None:
        super().__init__(lambda *_: 2.4)
        self.salts: dict[str, list[str]] = {"incumbent": [], "candidate": []}

    def measure(self, files: Any, **options: Any) -> Measurement:
        lucky = files["train.py"] != local.TRAIN
        self.salts["candidate" if lucky else "incumbent"].append(options["salt"])
        luck = int(options["salt"] or "1f" * 16, 16) % 97 / 97 if options["salt"] else float(not lucky)
        self.script = lambda *_: 2.4 + 0.01 * luck
        return super().measure(files, **options)


@pytest.mark.parametrize("seed", range(8))
def test_a_lucky_seed_has_no_luck_under_a_secret_salt(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = Lottery()
    bench = bench_of(TASK, tmp_path, measurer, monkeypatch)
    trees = {Arm.INCUMBENT: TASK.files, Arm.CANDIDATE: {**TASK.files, "train.py": b"SEED = 4"}}
    rows = HoldoutRows("made up", "cc" * 32, np.zeros((2, 9), np.int32))
    policy = JudgePolicy()
    runs = replay(bench, trees, rows, policy=policy, noise=NoiseRecord(), seed=seed, view=View(quiet=True))
    found = judge((), runs, noise=NoiseRecord(), seed=seed, budget_seconds=6.0, method="trusted", policy=policy)
    assert found.evidence.comparison is not GainOutcome.BETTER
    ours, theirs = measurer.salts["incumbent"], measurer.salts["candidate"]
    assert len(set(ours)) == len(ours) > 1  # a salt for each run, so that its noise is measured
    lead = len(ours) - len(theirs)
    assert lead == incumbent_lead(0)
    assert ours[lead:] == theirs  # and the same for both arms of a pair
