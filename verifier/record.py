"""The runs of a proposal's check, on disk as they are made: a check that is interrupted or repeated goes on with them.

A proposal that was released gets no new draw here: the same seed, noise record and runs enter the same test. Only what
was not the candidate's is left out (a fault of this host, a failing incumbent), and another question begins anew: other
code on either side, other data or packages, another machine. So does a test that a machine began which called itself
unfit, since it can reject nobody; `verifier.looks` counts it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from common.files import write_atomic
from trainer.errors import TrainerError
from trainer.judging.runs import ReplayRun, said_unfit
from trainer.statistics.comparison import Arm
from trainer.statistics.noise import NoiseRecord

MAX_BYTES = 1 << 22
RUNS = "runs.jsonl"  # the file's name in a check's folder


class ReplayRecord:
    """`seed` of the interleaving, the noise record that was there at the beginning, and the `runs` that stand.

    `about` names the question; `path` None keeps nothing.
    """

    def __init__(self, path: Path | None, about: Mapping[str, str], noise: NoiseRecord) -> None:
        self._path = path
        self.seed, self.noise, self.runs = secrets.randbits(32), noise, list[ReplayRun]()
        if path is None:
            return
        try:
            self._read(path, about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, TrainerError):
            opening = {"about": dict(about), "seed": self.seed, "noise": noise.to_json()}
            self.runs = []
            write_atomic(path, json.dumps(opening, sort_keys=True).encode() + b"\n")

    def add(self, run: ReplayRun) -> None:
        """Keep a run, on disk before this returns."""
        self.runs.append(run)
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(json.dumps(run.as_json(), sort_keys=True).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _read(self, path: Path, about: Mapping[str, str]) -> None:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        opening, *lines = content[: content.rfind(b"\n") + 1].splitlines()
        document = json.loads(opening)
        if document["about"] != dict(about):
            raise ValueError("another question")
        runs = [ReplayRun.from_json(json.loads(line)) for line in lines]
        if said_unfit(runs):
            raise ValueError("made on a machine that was not fit")
        self.seed, self.noise = int(document["seed"]), NoiseRecord.from_json(document["noise"])
        self.runs = [run for run in runs if _stands(run)]
        if len(content) > content.rfind(b"\n") + 1:  # half a line, of a kill
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def _stands(run: ReplayRun) -> bool:
    return not run.failure or (run.arm == Arm.CANDIDATE.value and not run.excused)
