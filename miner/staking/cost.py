"""What a submission takes from the wallet, by simulating it: a figure that holds for whatever program is deployed."""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from chain.money.client import Client, unsigned
from chain.network.base import FEE_PER_SIGNATURE
from chain.program.accounts import Project
from chain.program.instructions import Buy, Submit
from chain.program.tokens import create_associated_token_account
from miner.staking import submit


@dataclass(frozen=True, slots=True)
class SubmissionCost:
    """In lamports: the `purchase` of tokens that the stake lacks, the `rent` of the accounts that a submission creates
    (nothing returns it) and the `fees` of its transactions at most."""

    purchase: int
    rent: int
    fees: int

    @property
    def total(self) -> int:
        return self.purchase + self.rent + self.fees


def submission_cost(
    client: Client, miner: Pubkey, project: Project, *, stake: int, recipient: Pubkey
) -> SubmissionCost:
    """Simulate buying what lacks and submitting, as one transaction. ChainError if the program or the wallet
    does not allow it."""
    lacking = max(0, stake - client.tokens(project, miner))
    purchase = submit.price(project, client.supply(project), lacking)
    steps = [client.instruction(Buy(project.id, purchase), miner)] if lacking else []
    steps += [
        create_associated_token_account(miner, owner, project.mint) for owner in dict.fromkeys((miner, recipient))
    ]
    blank, score = bytes(32), project.current_best_aggregate_score + 1
    args = Submit(project.id, blank, blank, blank, blank, score, stake, recipient)
    steps.append(client.instruction(args, miner, proposal_id=client.config().next_proposal_id))
    fees = client.fee_bound(steps, miner) + (FEE_PER_SIGNATURE if lacking else 0)
    transaction = unsigned(steps, miner, client.network.latest_blockhash())
    held = client.network.balance(miner)
    after = client.network.simulate(transaction, watch=[miner]).accounts.get(miner)
    rent = held - (after.lamports if after else 0) - purchase - FEE_PER_SIGNATURE
    return SubmissionCost(purchase, max(0, rent), fees)
