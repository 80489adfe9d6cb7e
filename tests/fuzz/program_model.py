"""An independent model of the on-chain program, written from the description of its rules and not from its source.

It knows no accounts, bytes or keys: people are names, amounts are whole numbers. `refusals` names every rule that an
instruction breaks, as error codes; the order in which a program checks them is its own affair, so it may answer with
any of these. What breaks none must succeed, and `apply` says what then changes.

Rules: the next token costs base + slope × supply; a buyer gets as many as the payment covers and pays their exact
cost; a sale pays the same sum back; a stake goes into escrow until it is returned (approve) or slashed (reject,
expire), half burned and half claimable by who settled, the odd token burned; an approval mints one token, up to a cap;
a review is locked for a day, and a proposal expires seven days after it was submitted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX = 2**64 - 1
DAY, WEEK = 86_400, 7 * 86_400
ZERO = "zero"  # the zero key, which nobody has
OTHER = 0
"""A failure outside the program's own codes: a missing account, too few tokens or lamports, an id out of turn."""

UNAUTHORIZED, ALREADY_REGISTERED, NOT_REGISTERED, NOT_VERIFIER, ZERO_ADDRESS = range(6000, 6005)
UNKNOWN_PROJECT, UNKNOWN_PROPOSAL, WRONG_STATUS, WRONG_REVIEWER, LOCK_ACTIVE = range(6005, 6010)
LOCK_EXPIRED, EXPIRY_NOT_REACHED, SCORE_NOT_IMPROVED, ZERO_STAKE, ZERO_AMOUNT = range(6010, 6015)
INSUFFICIENT_PAYMENT, OVER_SUPPLY, POOL_CAP_EXCEEDED, NOTHING_TO_CLAIM = range(6015, 6019)
SOL_TRANSFER_FAILED, MATH_OVERFLOW, INVALID_CURVE, STRING_TOO_LONG = range(6019, 6023)
CODES = range(6000, 6023)

PENDING, IN_REVIEW, APPROVED, REJECTED, EXPIRED = range(5)


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction: who signs it, what it is about (`number` a project or proposal, `said` the id in its arguments
    where that is another), and its arguments; those that it does not have are ignored."""

    kind: str
    who: str
    number: int = 0
    said: int | None = None
    other: str = ""
    amount: int = 0
    score: int = 0
    base: int = 0
    slope: int = 0
    cap: int = 0
    name: int = 5
    symbol: int = 3
    project: int = 0


@dataclass(slots=True)
class ProjectModel:
    base: int
    slope: int
    cap: int
    best: int
    best_miner: str = ZERO
    minted: int = 0
    supply: int = 0
    vault: int = 0
    pool: int = 0

    def price(self, first: int, amount: int) -> int:
        """Lamports for `amount` tokens where there are `first`."""
        return sum(self.base + self.slope * (first + n) for n in (0, amount - 1)) * amount // 2 if amount else 0

    def affordable(self, lamports: int) -> int:
        low, high = 0, 1 << 66
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.price(self.supply, middle) <= lamports else (low, middle - 1)
        return low


@dataclass(slots=True)
class ProposalModel:
    project: int
    miner: str
    recipient: str
    stake: int
    claimed: int
    submitted: int
    status: int = PENDING
    reviewer: str = ZERO
    lock: int = 0
    verified: int = 0
    escrow: int = 0


@dataclass(slots=True)
class ProgramModel:
    """The whole state. `tokens` holds the token accounts that exist, by (project, person); `purse` the lamports
    that a person can spend on tokens; `account_rent` what a token account costs."""

    now: int
    account_rent: int
    purse: dict[str, int]
    authority: str | None = None
    verifiers: set[str] = field(default_factory=set)
    projects: list[ProjectModel] = field(default_factory=list)
    proposals: list[ProposalModel] = field(default_factory=list)
    claimable: dict[tuple[int, str], int] = field(default_factory=dict)
    tokens: dict[tuple[int, str], int] = field(default_factory=dict)

    def refusals(self, step: Step) -> set[int]:
        """Codes of the rules that it breaks; empty where it must succeed."""
        if self.authority is None:
            return set() if step.kind == "initialize" else {OTHER}
        match step.kind:
            case "initialize":
                return {OTHER}
            case "add_verifier" | "remove_verifier" | "transfer_authority" | "renounce_authority":
                return self._governance(step)
            case "create_project":
                return _broken(
                    {
                        OTHER: step.number != len(self.projects),
                        INVALID_CURVE: step.base + step.slope == 0,
                        MATH_OVERFLOW: step.base + step.slope > MAX,
                        STRING_TOO_LONG: step.name > 32 or step.symbol > 10,
                    }
                )
            case "token_account":
                return _broken({OTHER: step.number >= len(self.projects)})
            case "buy" | "sell" | "submit" | "claim_reward":
                return self._of_project(step)
        return self._of_proposal(step)

    def _governance(self, step: Step) -> set[int]:
        known = step.other in self.verifiers
        return _broken(
            {
                UNAUTHORIZED: step.who != self.authority,
                ZERO_ADDRESS: step.other == ZERO and step.kind in ("add_verifier", "transfer_authority"),
                ALREADY_REGISTERED: step.kind == "add_verifier" and known,
                NOT_REGISTERED: step.kind == "remove_verifier" and not known,
            }
        )

    def _of_project(self, step: Step) -> set[int]:
        at = step.project if step.kind == "submit" else step.number
        if at >= len(self.projects) or step.said not in (None, at):
            return {OTHER, UNKNOWN_PROJECT}
        project = self.projects[at]
        held = self.tokens.get((at, step.who))
        wrong: dict[int, bool] = {}
        match step.kind:
            case "buy":
                bought = project.affordable(step.amount)
                cost = project.price(project.supply, bought) + (self.account_rent if held is None else 0)
                wrong |= {
                    ZERO_AMOUNT: step.amount == 0,
                    MATH_OVERFLOW: project.base + project.slope * project.supply > MAX,
                    INSUFFICIENT_PAYMENT: bought == 0,
                    OVER_SUPPLY: project.supply + bought > MAX,
                    OTHER: cost > self.purse[step.who],
                }
            case "sell":
                proceeds = project.price(project.supply - step.amount, step.amount)
                wrong |= {
                    ZERO_AMOUNT: step.amount == 0,
                    OVER_SUPPLY: step.amount > project.supply,
                    OTHER: held is None or step.amount > held,
                    MATH_OVERFLOW: step.amount <= project.supply and proceeds > MAX,
                    SOL_TRANSFER_FAILED: step.amount <= project.supply and proceeds > project.vault,
                }
            case "submit":
                wrong |= {
                    ZERO_STAKE: step.amount == 0,
                    ZERO_ADDRESS: step.other == ZERO,
                    OTHER: held is None or step.amount > held or step.number != len(self.proposals),
                }
            case "claim_reward":
                wrong |= {
                    NOTHING_TO_CLAIM: not self.claimable.get((at, step.who)),
                    OTHER: held is None,
                }
        return _broken(wrong)

    def _of_proposal(self, step: Step) -> set[int]:
        if step.number >= len(self.proposals) or step.said not in (None, step.number):
            return {OTHER, UNKNOWN_PROPOSAL}
        found = self.proposals[step.number]
        project = self.projects[found.project]
        reviewing = step.kind in ("claim_review", "approve", "reject")
        settling = step.kind in ("approve", "reject")
        locked = found.status == IN_REVIEW and self.now <= found.lock
        wrong = {
            NOT_VERIFIER: reviewing and step.who not in self.verifiers,
            WRONG_REVIEWER: settling and found.status == IN_REVIEW and step.who != found.reviewer,
            LOCK_EXPIRED: settling and found.status == IN_REVIEW and self.now > found.lock,
        }
        match step.kind:
            case "claim_review":
                wrong |= {WRONG_STATUS: found.status not in (PENDING, IN_REVIEW), LOCK_ACTIVE: locked}
            case "release_review":
                wrong |= {WRONG_STATUS: found.status != IN_REVIEW, LOCK_ACTIVE: locked and step.who != found.reviewer}
            case "approve":
                accounts = [(found.project, person) in self.tokens for person in (found.miner, found.recipient)]
                wrong |= {
                    WRONG_STATUS: found.status != IN_REVIEW,
                    SCORE_NOT_IMPROVED: step.score <= project.best,
                    POOL_CAP_EXCEEDED: project.minted + 1 > project.cap,
                    OTHER: not all(accounts),
                }
            case "reject":
                wrong |= {WRONG_STATUS: found.status != IN_REVIEW}
            case "expire":
                wrong |= {
                    WRONG_STATUS: found.status not in (PENDING, IN_REVIEW),
                    EXPIRY_NOT_REACHED: self.now < found.submitted + WEEK,
                }
        return _broken(wrong)

    def apply(self, step: Step) -> None:
        """What a step that breaks no rule changes."""
        match step.kind:
            case "initialize":
                self.authority = step.who
            case "add_verifier":
                self.verifiers.add(step.other)
            case "remove_verifier":
                self.verifiers.remove(step.other)
            case "transfer_authority":
                self.authority = step.other
            case "renounce_authority":
                self.authority = ZERO
            case "create_project":
                self.projects.append(ProjectModel(step.base, step.slope, step.cap, step.score))
            case "token_account":
                self.tokens.setdefault((step.number, step.who), 0)
            case "buy":
                project, account = self.projects[step.number], (step.number, step.who)
                bought = project.affordable(step.amount)
                cost = project.price(project.supply, bought)
                self.purse[step.who] -= cost + (0 if account in self.tokens else self.account_rent)
                self.tokens[account] = self.tokens.get(account, 0) + bought
                project.supply += bought
                project.vault += cost
            case "sell":
                project = self.projects[step.number]
                proceeds = project.price(project.supply - step.amount, step.amount)
                self.tokens[step.number, step.who] -= step.amount
                project.supply -= step.amount
                project.vault -= proceeds
                self.purse[step.who] += proceeds
            case "submit":
                self.tokens[step.project, step.who] -= step.amount
                self.proposals.append(
                    ProposalModel(
                        step.project, step.who, step.other, step.amount, step.score, self.now, escrow=step.amount
                    )
                )
            case "claim_reward":
                amount = self.claimable[step.number, step.who]
                self.claimable[step.number, step.who] = 0
                self.projects[step.number].pool -= amount
                self.tokens[step.number, step.who] += amount
            case _:
                self._review(step)

    def _review(self, step: Step) -> None:
        found = self.proposals[step.number]
        project = self.projects[found.project]
        match step.kind:
            case "claim_review":
                found.status, found.reviewer, found.lock = IN_REVIEW, step.who, self.now + DAY
            case "release_review":
                found.status, found.reviewer, found.lock = PENDING, ZERO, 0
            case "approve":
                found.status, found.verified = APPROVED, step.score
                project.best, project.best_miner = step.score, found.miner
                project.minted += 1
                project.supply += 1
                self.tokens[found.project, found.recipient] += 1
                self.tokens[found.project, found.miner] += found.stake
                found.escrow = 0
            case "reject" | "expire":
                found.status = REJECTED if step.kind == "reject" else EXPIRED
                half = found.stake // 2
                account = (found.project, step.who)
                self.claimable[account] = self.claimable.get(account, 0) + half
                project.pool += half
                project.supply -= found.stake - half
                found.escrow = 0


def _broken(rules: dict[int, bool]) -> set[int]:
    return {code for code, broken in rules.items() if broken}
