"""Checks with made-up measurements: everything after the replay is real, verdict and attestation included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from chain.connection.opening import Connection
from chain.money.client import Client
from chain.network.embedded import EmbeddedNetwork
from chain.program.accounts import Proposal
from tests import local
from tests.trainer.judging.cases import NOISE, runs
from trainer.judging import holdout
from trainer.judging.policy import JudgePolicy
from trainer.judging.runs import ReplayRun
from trainer.judging.verdict import CaseFinding
from verifier import check, history, looks
from verifier.check import CheckResult
from verifier.intake import open_case
from verifier.replay import Replay

Answer = Callable[[Connection, Proposal], CheckResult]
RULES = replace(JudgePolicy(), same_hardware=False)


def checked(
    connection: Connection,
    proposal: Proposal,
    measured: Sequence[ReplayRun],
    *,
    findings: tuple[CaseFinding, ...] = (),
    policy: JudgePolicy = RULES,
) -> CheckResult:
    """The check of a proposal on chain whose runs came out like this."""
    case = open_case(connection, proposal, policy)
    replay = Replay(None, tuple(measured), NOISE, 7, "held out: x", "cc" * 32, findings)
    folder = check.folder_of(connection.home, connection.network.name, str(proposal.id))
    key = local.verifier_of(connection)
    seed, look = b"\1" * 32, 1
    if isinstance(connection.network, EmbeddedNetwork):
        client = Client(connection.network)
        seed = holdout.seed_of(history.submission_hash(client, proposal), proposal.id)
        seen = check.inspection(connection, case)
        assert seen is not None
        look = looks.number([], seen, history.other_looks(client, (*case.copies, proposal), key.pubkey()))
    rules = policy.at_look(look)
    return check._conclude(connection, case.project, proposal, case, replay, key, rules, folder, (seed, True), look)


def approving(connection: Connection, proposal: Proposal) -> CheckResult:
    return checked(connection, proposal, runs(0.2))


def rejecting(connection: Connection, proposal: Proposal) -> CheckResult:
    return checked(connection, proposal, runs(-0.05))


def releasing(connection: Connection, proposal: Proposal) -> CheckResult:
    return checked(connection, proposal, [])
