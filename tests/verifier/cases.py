"""Checks with made-up measurements: everything after the replay is real, verdict and attestation included."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from chain.connection.opening import Connection
from chain.program.interface import Proposal
from tests import local
from trainer.judging.replay import ReplayRun
from trainer.statistics.noise import NoiseRecord
from verifier import check
from verifier.check import Checked
from verifier.intake import open_case
from verifier.policy import Policy
from verifier.replay import Replay
from verifier.verdict import Finding

Answer = Callable[[Connection, Proposal], Checked]
SIGMA = 0.01
NOISE = NoiseRecord(20 * SIGMA**2, 20.0)
RULES = replace(Policy(), same_hardware=False)


def replay_run(arm: str, value: float | None, fresh: float | None = None, **changes: Any) -> ReplayRun:
    """A run that trained for 6.5 s."""
    probes = {"count": 4, "mean": 0.0, "worst": 1e-6, "gain_bound": 1e-5, "share_bound": 0.01}
    made = ReplayRun(arm, value, fresh, 6.5, 9.0, "", "", "aa" * 32, "bb" * 32, probes, None)
    return replace(made, **changes)


def runs(gain: float, fresh_gain: float | None = None, *, seed: int = 1, count: int = 8) -> tuple[ReplayRun, ...]:
    """`count` runs of each arm around 2.5 and 2.5 - gain, interleaved; on fresh text around 2.6."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        for arm, better, fresher in (
            ("incumbent", 0.0, 0.0),
            ("candidate", gain, gain if fresh_gain is None else fresh_gain),
        ):
            found.append(replay_run(arm, 2.5 - better + rng.gauss(0, SIGMA), 2.6 - fresher + rng.gauss(0, SIGMA)))
    return tuple(found)


def failing(arm: str, failure: str, detail: str = "It failed.") -> ReplayRun:
    return replay_run(arm, None, failure=failure, detail=detail, train_seconds=None)


def checked(
    connection: Connection,
    proposal: Proposal,
    measured: Sequence[ReplayRun],
    *,
    findings: tuple[Finding, ...] = (),
    policy: Policy = RULES,
) -> Checked:
    """The check of a proposal on chain whose runs came out like this."""
    case = open_case(connection, proposal, policy.source)
    replay = Replay(None, tuple(measured), NOISE, 7, "held out: x", "cc" * 32, findings)
    folder = check.folder_of(connection.home, connection.network.name, str(proposal.id))
    key = local.verifier_of(connection)
    return check._conclude(connection, case.project, proposal, case, replay, key, policy, folder, (b"\1" * 32, True))


def approving(connection: Connection, proposal: Proposal) -> Checked:
    return checked(connection, proposal, runs(0.2))


def rejecting(connection: Connection, proposal: Proposal) -> Checked:
    return checked(connection, proposal, runs(-0.05))


def releasing(connection: Connection, proposal: Proposal) -> Checked:
    return checked(connection, proposal, [])
