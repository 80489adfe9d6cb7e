"""The program in a real VM against an independent model of its rules: random sequences, and after each instruction the
answer and the whole state compared.

`ARMLX_FUZZ_EXAMPLES=100000 uv run pytest tests/fuzz/test_program.py` runs 10,000 sequences of 150 instructions on each
image; the suite runs 20. How often each error code came up is printed.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from solders.instruction import Instruction

from chain.program import PROGRAM_ID
from chain.program.accounts import Claimable, GlobalConfig
from chain.program.addresses import SYSTEM_PROGRAM, ZERO_KEY, associated_token_account
from chain.program.errors import ERRORS
from chain.program.instructions import (
    AddVerifier,
    Approve,
    Buy,
    ClaimReview,
    ClaimReward,
    Expire,
    Initialize,
    Reject,
    ReleaseReview,
    RemoveVerifier,
    RenounceAuthority,
    Sell,
    Submit,
    TransferAuthority,
    instruction_of,
)
from tests.chain.layout import TOKEN_ACCOUNT_SPACE
from tests.chain.svm import SOL, START, World, digest, project_args
from tests.fuzz import program_model as model
from tests.fuzz.mutate import EXAMPLES, TIME_LIMIT
from tests.fuzz.program_model import MAX, OTHER, ZERO, ProgramModel, ProjectModel, Step

pytestmark = pytest.mark.timeout(TIME_LIMIT)

LENGTH = 150  # instructions in a sequence
SEQUENCES = max(20, EXAMPLES // 10)
PEOPLE = ("authority", "verifier", "creator", "miner", "recipient", "stranger")
CURVES = ((1_000, 10), (0, 1), (5, 0), (2**62, 2**62), (MAX, 0), (1, 2**60), (0, 0), (MAX, 1))
AMOUNTS = (0, 1, 2, 3, 10, 999, 1_000, 10_000, 10**7, 2 * SOL, 10**13, MAX)
SCORES = (-(2**63), -5, 0, 1, 2, 3, 4, 5, 10**6, 2**63 - 1)
PAUSES = (1, 60, model.DAY - 1, model.DAY, model.DAY + 1, model.WEEK)


@dataclass
class Pair:
    """The program and the model side by side."""

    version: int
    world: World = field(init=False)
    model: ProgramModel = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.version)
        svm = self.world.svm
        alive = svm.minimum_balance_for_rent_exemption(0)  # a wallet may not be left with less, but for nothing
        self.keys = {name: getattr(self.world, name).pubkey() for name in PEOPLE} | {ZERO: ZERO_KEY}
        rent = svm.minimum_balance_for_rent_exemption(TOKEN_ACCOUNT_SPACE)
        purse = {name: self.world.lamports(self.keys[name]) - alive for name in PEOPLE}
        self.model = ProgramModel(START, rent, purse)

    def instruction(self, step: Step) -> Instruction:
        """The step as the client sends it; where it names another id than its accounts are of, with that one."""
        who, number = self.keys[step.who], step.number
        more: dict[str, Any] = {}
        made: object
        proposal = self.model.proposals[number] if number < len(self.model.proposals) else None
        project = proposal.project if proposal else 0
        other = self.keys.get(step.other, ZERO_KEY)
        match step.kind:
            case "token_account":
                return self.world.token_account(getattr(self.world, step.who), number)
            case "initialize":
                made = Initialize()
            case "add_verifier":
                made = AddVerifier(other)
            case "remove_verifier":
                made = RemoveVerifier(other)
            case "transfer_authority":
                made = TransferAuthority(other)
            case "renounce_authority":
                made = RenounceAuthority()
            case "create_project":
                made = project_args(
                    base_price=step.base,
                    slope=step.slope,
                    miner_pool_cap=step.cap,
                    baseline_aggregate_score=step.score,
                    token_name="n" * step.name,
                    token_symbol="s" * step.symbol,
                )
                more = {"project_id": number}
            case "buy":
                made = Buy(number, step.amount)
            case "sell":
                made = Sell(number, step.amount)
            case "claim_reward":
                made = ClaimReward(number)
            case "submit":
                hashes = (digest("code"), digest("code id"), digest("log"), digest("log id"))
                made, more = Submit(step.project, *hashes, step.score, step.amount, other), {"proposal_id": number}
            case "claim_review":
                made = ClaimReview(number)
            case "release_review":
                made = ReleaseReview(number)
            case "approve":
                made = Approve(number, step.score, digest("metrics"), digest("metrics id"))
                miner, recipient = (proposal.miner, proposal.recipient) if proposal else ("miner", "recipient")
                more = {"project_id": project, "miner": self.keys[miner], "reward_recipient": self.keys[recipient]}
            case "reject":
                made, more = Reject(number, digest("metrics"), digest("metrics id")), {"project_id": project}
            case "expire":
                made, more = Expire(number), {"project_id": project}
            case _:
                raise AssertionError(step.kind)
        sent = instruction_of(PROGRAM_ID, made, who, **more)
        if step.said is None:
            return sent
        data = bytes(sent.data)
        return Instruction(PROGRAM_ID, data[:8] + step.said.to_bytes(8, "little") + data[16:], list(sent.accounts))

    def take(self, step: Step) -> int | None:
        """Run the step in both; the error code, OTHER for one that is not the program's, None for success."""
        expected = self.model.refusals(step)
        outcome = self.world.send(self.instruction(step))
        if outcome.error is None:
            assert not expected, f"succeeded; expected was one of {expected}"
            self.model.apply(step)
            return None
        assert expected, f"failed: {outcome.error}, {outcome.logs[-3:]}"
        code = outcome.code if outcome.code in ERRORS else OTHER
        assert code in expected or OTHER in expected, f"failed with {outcome.code}; expected was one of {expected}"
        return code

    def wait(self, seconds: int) -> None:
        self.world.wait(seconds)
        self.model.now += seconds

    def compare(self) -> None:
        """The whole state of both is the same."""
        world, pdas, keys = self.world, self.world.pdas, self.keys
        if self.model.authority is None:
            assert not world.exists(pdas.config())
            return
        config = world.read(GlobalConfig, pdas.config())
        counts = (config.next_project_id, config.next_proposal_id, config.verifier_count)
        assert config.authority == keys[self.model.authority]
        assert counts == (len(self.model.projects), len(self.model.proposals), len(self.model.verifiers))
        for name in PEOPLE:
            assert world.exists(pdas.verifier_entry(keys[name])) == (name in self.model.verifiers), name
        for number, project in enumerate(self.model.projects):
            self._compare_project(number, project)
        for number, proposal in enumerate(self.model.proposals):
            real = world.proposal(number)
            assert (real.project_id, real.miner, real.reward_recipient, real.stake, real.submitted_at) == (
                proposal.project,
                keys[proposal.miner],
                keys[proposal.recipient],
                proposal.stake,
                proposal.submitted,
            )
            assert (real.claimed_aggregate_score, real.verified_aggregate_score, int(real.status)) == (
                proposal.claimed,
                proposal.verified,
                proposal.status,
            )
            assert (real.reviewer, real.review_lock_until) == (keys[proposal.reviewer], proposal.lock)
            assert world.amount(pdas.proposal_escrow(number)) == proposal.escrow

    def _compare_project(self, number: int, project: ProjectModel) -> None:
        world, pdas, keys = self.world, self.world.pdas, self.keys
        real = world.project(number)
        best = (real.current_best_aggregate_score, real.current_best_miner, real.miner_pool_minted)
        assert best == (project.best, keys[project.best_miner], project.minted)
        assert (real.base_price, real.slope, real.miner_pool_cap) == (project.base, project.slope, project.cap)
        assert world.supply(number) == project.supply
        assert world.amount(pdas.project_pool(number)) == project.pool
        vault = pdas.sol_vault(number)
        account = world.svm.get_account(vault)
        assert account is not None
        rent = world.svm.minimum_balance_for_rent_exemption(len(account.data))
        assert account.lamports - rent == project.vault
        for name in PEOPLE:
            wallet = associated_token_account(keys[name], pdas.mint(number))
            held = self.model.tokens.get((number, name))
            assert (world.amount(wallet) if world.exists(wallet) else None) == held, (number, name)
            claimable = pdas.claimable(number, keys[name])
            there = world.svm.get_account(claimable)
            owed = world.read(Claimable, claimable).amount if there and there.owner != SYSTEM_PROGRAM else 0
            assert owed == self.model.claimable.get((number, name), 0), (number, name)


def chosen(rng: random.Random, state: ProgramModel) -> Step:
    """Any step, and one that must succeed more often than chance would have it: that leads further."""
    step = draw(rng, state)
    while state.refusals(step) and rng.random() < 0.7:
        step = draw(rng, state)
    return step


def draw(rng: random.Random, state: ProgramModel) -> Step:
    """Any step, most of them about what there is."""
    who = rng.choice(PEOPLE)
    projects, proposals = len(state.projects), len(state.proposals)
    project = rng.randrange(projects + (rng.random() < 0.03)) if projects else 0
    kind = rng.choices(
        [
            "add_verifier", "remove_verifier", "transfer_authority", "renounce_authority", "initialize",
            "create_project", "token_account", "buy", "sell", "submit", "claim_reward",
            "claim_review", "release_review", "approve", "reject", "expire",
        ],
        [3, 2, 0.6, 0.1, 0.3, 3, 3, 8, 8, 8, 4, 8, 3, 9, 4, 3],
    )[0]  # fmt: skip
    if rng.random() < 0.8 and state.authority in PEOPLE and kind.endswith(("_verifier", "_authority")):
        who = state.authority or who
    other = rng.choice((*PEOPLE, ZERO)) if rng.random() < 0.3 else rng.choice(PEOPLE)
    if kind == "create_project":
        base, slope = rng.choice(CURVES)
        number = projects if rng.random() < 0.9 else rng.choice((0, projects + 1, MAX))
        name, symbol, cap = rng.choice((0, 5, 32, 33)), rng.choice((1, 10, 10, 11)), rng.choice((0, 1, 2, 5, MAX))
        score = rng.choice(SCORES[:6])
        return Step(kind, who, number, base=base, slope=slope, cap=cap, score=score, name=name, symbol=symbol)
    said = None
    if kind in ("buy", "sell", "claim_reward", "token_account"):
        holders = [at for at, amount in state.tokens.items() if amount]
        if kind == "sell" and holders and rng.random() < 0.7:
            project, who = rng.choice(holders)
        amount = rng.choice(AMOUNTS)
        held = state.tokens.get((project, who), 0)
        if kind == "sell" and project < projects:
            amount = rng.choice((amount, held, held, state.projects[project].supply, held + 1))
        if kind != "token_account" and rng.random() < 0.05:
            said = rng.choice((project + 1, MAX))
        return Step(kind, who, project, said, amount=min(amount, MAX))
    if kind == "submit":
        holders = [at for at, amount in state.tokens.items() if amount]
        if holders and rng.random() < 0.8:
            project, who = rng.choice(holders)
        amount = rng.choice((0, 1, 2, 3, 7, state.tokens.get((project, who), 1)))
        number = proposals if rng.random() < 0.95 else rng.choice((0, proposals + 1))
        said = rng.choice((project + 1, MAX)) if rng.random() < 0.04 else None
        return Step(kind, who, number, said, other=other, amount=amount, score=rng.choice(SCORES), project=project)
    if kind in ("claim_review", "release_review", "approve", "reject", "expire"):
        number = rng.randrange(proposals + (rng.random() < 0.03)) if proposals else 0
        if number < proposals and rng.random() < 0.7:
            found = state.proposals[number]
            known = sorted(state.verifiers)
            who = found.reviewer if found.reviewer != ZERO else rng.choice(known) if known else who
        said = rng.choice((number + 1, MAX)) if rng.random() < 0.04 else None
        best = state.projects[state.proposals[number].project].best if number < proposals else 0
        return Step(kind, who, number, said, score=min(2**63 - 1, rng.choice((best, best + 1, best + 1, best + 2))))
    return Step(kind, who, other=other)


def start(rng: random.Random) -> list[Step]:
    """Where most sequences begin: one verifier, and a project with some tokens sold; at times one whose vault holds
    less than all its tokens are worth, since an approval mints one that nobody paid for."""
    steps = [
        Step("initialize", "authority"),
        Step("add_verifier", "authority", other="verifier"),
        Step("create_project", "creator", 0, base=rng.choice((0, 1_000)), slope=10, cap=rng.choice((1, 2, 9)), score=0),
        Step("buy", "miner", 0, amount=rng.choice((60, 5_000, 100_000))),
        Step("token_account", "recipient", 0),
    ]
    if rng.random() < 0.8:
        return steps
    steps += [Step("buy", "miner", 0, amount=100_000), Step("submit", "miner", 0, other="miner", amount=1, score=5)]
    steps += [Step("claim_review", "verifier", 0), Step("approve", "verifier", 0, score=5)]
    return [
        *steps,
        Step("sell", "miner", 0, amount=0),
        *(Step("sell", "miner", 0, amount=n) for n in (64, 32, 16, 8, 4)),
    ]


@pytest.mark.parametrize("version", [0, 3])
def test_random_sequences_end_as_the_model_says(version: int, capsys: pytest.CaptureFixture[str]) -> None:
    seen: Counter[int | None] = Counter()
    for seed in range(SEQUENCES):
        rng, pair, done = random.Random(f"{version} {seed}"), Pair(version), list[Step]()
        first = start(rng) if rng.random() < 0.9 else []
        try:
            for index in range(LENGTH):
                if rng.random() < 0.08:
                    pair.wait(rng.choice(PAUSES))
                step = first[index] if index < len(first) else chosen(rng, pair.model)
                done.append(step)
                result = pair.take(step)
                seen[result] += 1
                if result is None or index % 10 == 9:  # what fails is undone by the VM, not by the program
                    pair.compare()
        except AssertionError as difference:
            last = "\n".join(f"  {step}" for step in done[-12:])
            raise AssertionError(
                f"image v{version}, sequence {seed}, step {len(done)}:\n{last}\n{difference}"
            ) from None
    with capsys.disabled():
        codes = ", ".join(f"{code} {seen[code]}" for code in model.CODES)
        print(
            f"\nimage v{version}: {seen.total():,} instructions, {seen[None]:,} succeeded; {codes}; other {seen[OTHER]}"
        )
    missing = [f"{code} {ERRORS[code].__name__}" for code in model.CODES if not seen[code]]
    assert not missing, f"never came up: {', '.join(missing)}"
