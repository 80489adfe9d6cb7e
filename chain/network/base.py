"""What this project asks of a Solana network.

`Network` is the one interface; `chain.network.embedded.EmbeddedNetwork` (in process) and
`chain.network.rpc.RpcNetwork` (any cluster over HTTP) implement it. Everything is synchronous and every call ends
within a time limit.
Errors of a transaction travel as the JSON an RPC node uses (a string such as "BlockhashNotFound", or an
object such as {"InstructionError": [0, {"Custom": 6012}]}), so both networks describe a failure alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from solders import account as solders_account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_status import TransactionErrorType, TransactionStatus

from chain.errors import ChainError, TransactionFailed

CLOCK_SYSVAR = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
LAMPORTS_PER_SOL = 1_000_000_000
FEE_PER_SIGNATURE = 5_000  # lamports
BLOCKHASH_AGE = 150  # blocks for which a blockhash stays valid, as on a cluster
CONFIRM_SECONDS = 180.0  # a blockhash lives for a minute or two, a final block comes half a minute later
MAX_TRANSACTION = 1_232  # bytes on the wire: one IPv6 packet


@dataclass(frozen=True, slots=True)
class Account:
    """One account's state; `lamports` and `rent_epoch` are u64."""

    lamports: int
    owner: Pubkey
    data: bytes
    executable: bool
    rent_epoch: int


@dataclass(frozen=True, slots=True)
class Clock:
    """The cluster's time as programs see it: `unix_timestamp` in seconds."""

    slot: int
    unix_timestamp: int


@dataclass(frozen=True, slots=True)
class Blockhash:
    """A recent blockhash and the last block height at which a transaction that carries it can land."""

    hash: Hash
    last_valid_block_height: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do now. `error` is None when it would succeed, else a sentence for people;
    `program_error` the program's custom code, if that is why; `units` compute units;
    `accounts` the state afterwards of the addresses watched (empty when it would fail).
    """

    error: str | None
    program_error: int | None
    logs: tuple[str, ...]
    units: int
    return_data: bytes
    accounts: dict[Pubkey, Account | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TransactionReceipt:
    """A transaction that landed, whether it succeeded (`error` None) or only paid its `fee` (lamports).

    `paid` is what its fee payer lost in all, fee included (below 0 for a gain), in lamports; `transaction` its
    wire form, whose first signature is `signature`.
    """

    signature: Signature
    slot: int
    block_time: int | None
    fee: int
    paid: int
    error: str | None
    program_error: int | None
    logs: tuple[str, ...]
    transaction: bytes


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A transaction as an address's history lists it; `final` where it can no longer vanish."""

    signature: Signature
    slot: int
    block_time: int | None
    failed: bool
    final: bool


class RpcError(ChainError):
    """A node's refusal: its JSON-RPC `code`, and `data` as JSON."""

    def __init__(self, url: str, code: int, message: str, data: object) -> None:
        super().__init__(
            f"The RPC node {url} refused: {message[:300].rstrip('.')} (code {code}).",
            "Correct the request, or use another node with --rpc-url URL.",
        )
        self.code = code
        self.data = data
        self.doubted = False  # whether an earlier try of the same request may have reached the node


class TransactionRejected(TransactionFailed):
    """A refusal by the chain itself: `error` is its JSON error, `program_error` the custom code or None,
    `units` the compute units spent before it failed.
    """

    def __init__(
        self, error: object, logs: tuple[str, ...] = (), units: int = 0, *, where: str = "in simulation"
    ) -> None:
        text = error_text(error)
        super().__init__(f"The transaction failed {where}: {text}.", error_cure(error, logs), logs)
        self.error = error
        self.program_error = program_error_of(error)
        self.units = units


class Network(Protocol):
    """A Solana network as the rest of the project sees it.

    Every method may raise `NetworkUnreachable`; where a method raises more, it says so.
    """

    name: str
    program_id: Pubkey
    is_local: bool

    @property
    def genesis_hash(self) -> Hash:
        """What tells this network from every other."""

    def account(self, key: Pubkey) -> Account | None:
        """The account, or None if there is none."""

    def accounts(self, keys: Sequence[Pubkey]) -> list[Account | None]:
        """One entry per key, in order."""

    def program_accounts(
        self, program: Pubkey, *, size: int | None = None, memcmp: Sequence[tuple[int, bytes]] = ()
    ) -> list[tuple[Pubkey, Account]]:
        """Accounts owned by `program` with exactly `size` data bytes that hold each (offset, bytes)."""

    def balance(self, key: Pubkey) -> int:
        """Lamports; 0 where there is no account."""

    def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` data bytes from rent."""

    def clock(self) -> Clock:
        """The Clock sysvar."""

    def block_height(self) -> int:
        """Height of the newest block that can no longer vanish."""

    def latest_blockhash(self) -> Blockhash:
        """A blockhash to sign with."""

    def block_hash(self, slot: int) -> Hash | None:
        """The blockhash of the first block at or after `slot`; None while there is no such block yet."""

    def priority_fees(self, keys: Sequence[Pubkey]) -> list[int]:
        """Micro-lamports per compute unit that recent transactions writing `keys` paid at least, per block."""

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        """Run `tx` on the state of now, unsigned and with any blockhash if need be, and keep nothing."""

    def send(self, tx: VersionedTransaction) -> Signature:
        """Submit only. Raises TransactionRejected where the preflight refuses it (nothing was charged)."""

    def confirm(
        self,
        signature: Signature,
        last_valid_block_height: int,
        *,
        timeout: float = CONFIRM_SECONDS,
        final: bool = False,
    ) -> TransactionReceipt:
        """Wait until it has landed, with `final` until it can no longer vanish.

        Raises TransactionRejected where it failed on chain, TransactionFailed if it is known never to land,
        NetworkUnreachable if `timeout` seconds left that open.
        """

    def transaction(self, signature: Signature) -> TransactionReceipt | None:
        """A landed transaction, or None if this network knows of none."""

    def signatures(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[Signature]:
        """Transactions that name `address`, newest first; `before` starts below that one."""

    def entries(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[HistoryEntry]:
        """One page of what `signatures` lists, at most 1,000, with slot, time and fate of each."""

    def final_slot(self) -> int:
        """The newest slot that can no longer vanish."""

    def airdrop(self, key: Pubkey, lamports: int) -> Signature:
        """Ask the network's faucet for `lamports`. Raises TransactionFailed if it gives none."""

    def close(self) -> None:
        """Close files and sockets; closing twice is harmless."""


def account_of(state: solders_account.Account) -> Account:
    """A solders account in this module's words."""
    return Account(state.lamports, state.owner, state.data, state.executable, state.rent_epoch)


def matches(data: bytes, size: int | None, memcmp: Sequence[tuple[int, bytes]]) -> bool:
    """Whether `data` has exactly `size` bytes (None: any) and holds each (offset, bytes)."""
    return (size is None or len(data) == size) and all(
        data[offset : offset + len(want)] == want for offset, want in memcmp
    )


def error_json(error: TransactionErrorType) -> object:
    """The JSON an RPC node shows for a solders transaction error."""
    # solders encodes a lone error untagged ([0, 6012]); inside a status it has the node's own form.
    status = TransactionStatus(0, err=error, status=None, confirmations=None, confirmation_status=None)
    return json.loads(status.to_json())["err"]


def program_error_of(error: object) -> int | None:
    """The custom code in a transaction error, or None if that is not why it failed.

    `error` is None, a node's JSON or a solders error.
    """
    if error is not None and not isinstance(error, str | dict):
        error = error_json(error)  # type: ignore[arg-type]
    match error:
        case {"InstructionError": [int(), {"Custom": int(code)}]}:
            return code
    return None


def sol(lamports: int) -> str:
    """An amount as a sentence says it: "99,999.5 SOL"."""
    whole, rest = divmod(abs(lamports), LAMPORTS_PER_SOL)
    return f"{'−' if lamports < 0 else ''}{whole:,}.{rest:09d}".rstrip("0").rstrip(".") + " SOL"


def error_text(error: object) -> str:
    """A node's JSON error in words, without a full stop."""
    match error:
        case {"InstructionError": [int(index), {"Custom": int(code)}]}:
            return f"instruction {index} returned the program error {code} (0x{code:x})"
        case {"InstructionError": [int(index), str(name)]}:
            return f"instruction {index} failed, {_words(name)}"
        case str(name):
            return _words(name)
        case {"InsufficientFundsForRent": {"account_index": int(index)}}:
            return f"account {index} would not hold enough lamports to be exempt from rent"
    return json.dumps(error)[:200]


_FUND = "Fund the paying wallet first."
_CURES = {
    "BlockhashNotFound": "Sign it again with a recent blockhash from this network.",
    "AlreadyProcessed": "Look it up by its signature; there is no need to send it again.",
    "AccountNotFound": _FUND,
    "InsufficientFundsForFee": _FUND,
    "InsufficientFundsForRent": "Send more lamports to that account, or leave it empty.",
    "SignatureFailure": "Sign it with every key that its message names as a signer.",
}


def error_cure(error: object, logs: Sequence[str] = ()) -> str:
    """What to do about a node's JSON error."""
    if any("insufficient lamports" in line for line in logs):
        return _FUND
    name = next(iter(error), "") if isinstance(error, dict) else error
    return _CURES.get(name if isinstance(name, str) else "", "The program's log says why.")


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[:100]).lower()
