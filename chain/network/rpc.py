"""Any Solana cluster, asked over JSON-RPC through one node (`chain.network.transport`).

Rules: what was sent is repeated byte for byte, so that it can land once only; it is dead only once a node that has
seen a final block past its blockhash's last one knows nothing of it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from solders.account_decoder import UiAccountEncoding
from solders.commitment_config import CommitmentLevel
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.rpc import requests, responses
from solders.rpc.config import (
    RpcAccountInfoConfig,
    RpcBlockConfig,
    RpcContextConfig,
    RpcProgramAccountsConfig,
    RpcRequestAirdropConfig,
    RpcSendTransactionConfig,
    RpcSignaturesForAddressConfig,
    RpcSignatureStatusConfig,
    RpcSimulateTransactionAccountsConfig,
    RpcSimulateTransactionConfig,
    RpcTransactionConfig,
)
from solders.rpc.filter import Memcmp
from solders.signature import Signature
from solders.transaction import VersionedTransaction
from solders.transaction_status import (
    TransactionConfirmationStatus,
    TransactionDetails,
    TransactionStatus,
    UiTransactionEncoding,
)

from chain.errors import NetworkUnreachable, TransactionFailed
from chain.network.base import (
    CLOCK_SYSVAR,
    CONFIRM_SECONDS,
    Account,
    Blockhash,
    Clock,
    HistoryEntry,
    RpcError,
    Simulation,
    TransactionReceipt,
    TransactionRejected,
    account_of,
    error_json,
    error_text,
    matches,
    program_error_of,
)
from chain.network.transport import CALL_SECONDS, NoAnswer, Transport
from chain.program import PROGRAM_ID
from common.text import without_key

_POLL_SECONDS, _REBROADCAST_SECONDS = 0.4, 2.0
_MAX_ACCOUNTS = 100  # per getMultipleAccounts
_MAX_FEE_KEYS = 128  # per getRecentPrioritizationFees
_COMMITMENTS = {
    "processed": CommitmentLevel.Processed,
    "confirmed": CommitmentLevel.Confirmed,
    "finalized": CommitmentLevel.Finalized,
}
_REACHED = {
    "processed": (
        TransactionConfirmationStatus.Processed,
        TransactionConfirmationStatus.Confirmed,
        TransactionConfirmationStatus.Finalized,
    ),
    "confirmed": (TransactionConfirmationStatus.Confirmed, TransactionConfirmationStatus.Finalized),
    "finalized": (TransactionConfirmationStatus.Finalized,),
}
_PREFLIGHT_FAILURE = -32002
_BASE64 = UiAccountEncoding.Base64

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _readable(ask: Callable[Concatenate[RpcNetwork, _P], _T]) -> Callable[Concatenate[RpcNetwork, _P], _T]:
    """A method that reads an answer: solders decodes some fields only when they are asked for, and panics there."""

    @wraps(ask)
    def asked(self: RpcNetwork, /, *args: _P.args, **more: _P.kwargs) -> _T:
        try:
            return ask(self, *args, **more)
        except BaseException as panic:  # a panic is no Exception
            if type(panic).__name__ != "PanicException":
                raise
            raise self._transport.nonsense("an answer with a field that does not decode") from None

    return asked


class RpcNetwork:
    """A cluster behind `url`. Threads may share one; their calls go out one at a time.

    `commitment` ("processed", "confirmed" or "finalized") holds for every read and for `confirm`.
    `is_local` is by default whether `url` is on this machine. `call_seconds` bounds one call with its retries;
    `sleep` does the waits between tries and looks.
    """

    def __init__(
        self,
        url: str,
        *,
        program_id: Pubkey = PROGRAM_ID,
        name: str | None = None,
        commitment: str = "confirmed",
        is_local: bool | None = None,
        call_seconds: float = CALL_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(url, call_seconds=call_seconds, sleep=sleep)
        self._shown = self._transport.shown
        self.url = url
        self.name = without_key(name or url)
        self.program_id = program_id
        self.is_local = self._transport.here if is_local is None else is_local
        self._commitment = _COMMITMENTS[commitment]
        # Blocks and their transactions are not available below "confirmed".
        self._settled = _COMMITMENTS["confirmed" if commitment == "processed" else commitment]
        self._reached = _REACHED[commitment]
        self._sleep = sleep
        self._genesis: Hash | None = None
        self._rent: dict[int, int] = {}
        self._sent: dict[Signature, bytes] = {}

    @property
    @_readable
    def genesis_hash(self) -> Hash:
        """What tells this cluster from every other; asked once."""
        if self._genesis is None:
            self._genesis = self._transport.call(requests.GetGenesisHash(), responses.GetGenesisHashResp).value
        return self._genesis

    def account(self, key: Pubkey) -> Account | None:
        """The account, or None if there is none."""
        return self.accounts([key])[0]

    @_readable
    def accounts(self, keys: Sequence[Pubkey]) -> list[Account | None]:
        """One entry per key, in order; of one moment per hundred."""
        config = RpcAccountInfoConfig(encoding=_BASE64, commitment=self._commitment)
        found: list[Account | None] = []
        for start in range(0, len(keys), _MAX_ACCOUNTS):
            some = list(keys[start : start + _MAX_ACCOUNTS])
            answer = self._transport.call(requests.GetMultipleAccounts(some, config), responses.GetMultipleAccountsResp)
            if len(answer.value) != len(some):
                raise self._transport.nonsense(f"{len(answer.value)} accounts for {len(some)} addresses")
            found += [account_of(account) if account else None for account in answer.value]
        return found

    @_readable
    def program_accounts(
        self, program: Pubkey, *, size: int | None = None, memcmp: Sequence[tuple[int, bytes]] = ()
    ) -> list[tuple[Pubkey, Account]]:
        """Accounts owned by `program` with exactly `size` data bytes that hold each (offset, bytes)."""
        filters: list[int | Memcmp] = [Memcmp(offset, want) for offset, want in memcmp]
        if size is not None:
            filters.append(size)
        config = RpcProgramAccountsConfig(RpcAccountInfoConfig(encoding=_BASE64, commitment=self._commitment), filters)
        answer = self._transport.call(requests.GetProgramAccounts(program, config), responses.GetProgramAccountsResp)
        found = [(keyed.pubkey, account_of(keyed.account)) for keyed in answer.value]
        # A node's filters are not trusted either.
        kept = [(key, account) for key, account in found if account.owner == program]
        kept = [(key, account) for key, account in kept if matches(account.data, size, memcmp)]
        return sorted(kept, key=lambda pair: bytes(pair[0]))

    @_readable
    def balance(self, key: Pubkey) -> int:
        """Lamports; 0 where there is no account."""
        request = requests.GetBalance(key, RpcContextConfig(self._commitment))
        return self._transport.call(request, responses.GetBalanceResp).value

    @_readable
    def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` data bytes from rent; asked once per size."""
        if size not in self._rent:
            request = requests.GetMinimumBalanceForRentExemption(size, self._commitment)
            self._rent[size] = self._transport.call(request, responses.GetMinimumBalanceForRentExemptionResp).value
        return self._rent[size]

    def clock(self) -> Clock:
        """The Clock sysvar: exactly what programs see."""
        account = self.account(CLOCK_SYSVAR)
        if account is None or len(account.data) < 40:
            raise self._transport.nonsense("no Clock sysvar")
        slot, _, _, _, unix = struct.unpack_from("<QqQQq", account.data)
        return Clock(slot, unix)

    @_readable
    def latest_blockhash(self) -> Blockhash:
        """A blockhash to sign with."""
        request = requests.GetLatestBlockhash(RpcContextConfig(self._commitment))
        found = self._transport.call(request, responses.GetLatestBlockhashResp).value
        return Blockhash(found.blockhash, found.last_valid_block_height)

    @_readable
    def block_height(self) -> int:
        """Height of the newest final block."""
        request = requests.GetBlockHeight(RpcContextConfig(CommitmentLevel.Finalized))
        return self._transport.call(request, responses.GetBlockHeightResp).value

    @_readable
    def block_hash(self, slot: int) -> Hash | None:
        """The blockhash of the first block at or after `slot`; None while there is no such block yet."""
        request = requests.GetBlocks(slot, slot + 1_000, self._settled)
        found = self._transport.call(request, responses.GetBlocksResp).value
        if not found:
            return None
        if min(found) < slot:
            raise self._transport.nonsense(f"block {min(found)} where those from {slot} on were asked for")
        config = RpcBlockConfig(
            transaction_details=TransactionDetails.None_,
            rewards=False,
            commitment=self._settled,
            max_supported_transaction_version=0,
        )
        block = self._transport.call(requests.GetBlock(min(found), config), responses.GetBlockResp).value
        return None if block is None else block.blockhash

    @_readable
    def priority_fees(self, keys: Sequence[Pubkey]) -> list[int]:
        """Micro-lamports per compute unit that recent transactions writing `keys` paid at least, per block."""
        request = requests.GetRecentPrioritizationFees(list(keys)[:_MAX_FEE_KEYS])
        answer = self._transport.call(request, responses.GetRecentPrioritizationFeesResp)
        return [entry.prioritization_fee for entry in answer.value]

    @_readable
    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        """Run `tx` on the state of now and keep nothing; neither signatures nor blockhash are checked."""
        accounts = RpcSimulateTransactionAccountsConfig(list(watch), _BASE64) if watch else None
        config = RpcSimulateTransactionConfig(
            replace_recent_blockhash=True, commitment=self._commitment, accounts=accounts
        )
        request = requests.SimulateVersionedTransaction(tx, config)
        found = self._transport.call(request, responses.SimulateTransactionResp).value
        error = None if found.err is None else error_json(found.err)
        states = (found.accounts or []) if error is None else []
        if error is None and len(states) != len(watch):
            raise self._transport.nonsense(f"{len(states)} accounts for {len(watch)} addresses")
        return Simulation(
            error=None if error is None else error_text(error),
            program_error=program_error_of(error),
            logs=tuple(found.logs or ()),
            units=found.units_consumed or 0,
            return_data=found.return_data.data if found.return_data else b"",
            accounts={k: account_of(state) if state else None for k, state in zip(watch, states, strict=False)},
        )

    def send(self, tx: VersionedTransaction) -> Signature:
        """Submit only. Raises TransactionRejected where the preflight refuses it (nothing was charged).

        If an answer was lost the node may have taken it: that is not a failure, and `confirm` finds out.
        """
        signature = tx.signatures[0]
        self._sent[signature] = bytes(tx)
        try:
            self._broadcast(bytes(tx), skip_preflight=False)
        except RpcError as error:
            rejected = _rejected(error)
            # A try whose answer was lost may have landed or still land, whatever this one is refused for.
            if not error.doubted and (rejected is None or rejected.error != "AlreadyProcessed"):
                del self._sent[signature]
                raise (rejected or TransactionFailed(error.problem, error.cure)) from None
        except NoAnswer as silence:
            if not silence.maybe_done:
                del self._sent[signature]
                raise
        return signature

    def confirm(
        self,
        signature: Signature,
        last_valid_block_height: int,
        *,
        timeout: float = CONFIRM_SECONDS,
        final: bool = False,
    ) -> TransactionReceipt:
        """Wait until it has landed at the commitment, with `final` until it can no longer vanish; the same bytes are
        sent again now and then, also where a fork that held them was dropped.

        Raises TransactionRejected where it failed on chain, TransactionFailed if its blockhash has expired
        without it (it can never land), NetworkUnreachable if `timeout` seconds left that open. A node that
        gives no usable answer meanwhile is asked again until then.
        """
        trouble = ""
        deadline = time.monotonic() + timeout
        again = time.monotonic() + _REBROADCAST_SECONDS
        while time.monotonic() < deadline:
            try:
                receipt, known = self._look(signature, last_valid_block_height, final=final)
                if receipt is not None:
                    return receipt
                if not known and time.monotonic() > again and signature in self._sent:
                    again = time.monotonic() + _REBROADCAST_SECONDS
                    with suppress(RpcError):  # the status decides, not what a node thinks of a repetition
                        self._broadcast(self._sent[signature], skip_preflight=True)
            except NetworkUnreachable as error:
                trouble = f" {error.problem}"
            self._sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        raise NetworkUnreachable(
            f"After {timeout:.0f} s {self._shown} has not confirmed {signature}, which may still land.{trouble}",
            "Look up that transaction before sending anything again.",
        )

    def _look(
        self, signature: Signature, last_valid_block_height: int, *, final: bool
    ) -> tuple[TransactionReceipt | None, bool]:
        """The receipt, if it has landed by now, and whether any node knows of the transaction.

        That it is dead follows from no single answer: two must agree on the height, and two know nothing of it.
        """
        # The height first: were it read last, the transaction could land in between.
        slot, height = self._final()
        seen, status = self._status(signature)
        if status is None:
            # Only a node that has come as far as that height was read at can say that there is nothing.
            expired = height > last_valid_block_height and seen >= slot
            if not expired or self.block_height() <= last_valid_block_height:
                return None, False
        elif status.confirmation_status not in (_REACHED["finalized"] if final else self._reached):
            return None, True
        receipt, error = self._landed(signature, final=final) or (None, None)
        if receipt is None and status is not None:
            return None, True
        self._sent.pop(signature, None)
        if receipt is None:
            raise TransactionFailed(
                f"The transaction {signature} did not land before its blockhash expired; it never will.",
                "Sign it again with a fresh blockhash and send it.",
            )
        if error is not None:
            raise TransactionRejected(error, receipt.logs, where="on chain")
        return receipt, True

    def transaction(self, signature: Signature) -> TransactionReceipt | None:
        """A landed transaction, or None if this node knows of none."""
        landed = self._landed(signature)
        return landed[0] if landed else None

    @_readable
    def signatures(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[Signature]:
        """Transactions that name `address`, newest first; `before` starts below that one."""
        found: list[Signature] = []
        while len(found) < limit:
            page = min(1000, limit - len(found))
            config = RpcSignaturesForAddressConfig(before=before, limit=page, commitment=self._commitment)
            request = requests.GetSignaturesForAddress(address, config)
            answer = self._transport.call(request, responses.GetSignaturesForAddressResp).value
            found += [entry.signature for entry in answer[:page]]
            if len(answer) < page:
                break
            before = found[-1]
        return found

    @_readable
    def entries(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[HistoryEntry]:
        """One page of `signatures`, at most 1,000, with slot, time and fate of each."""
        config = RpcSignaturesForAddressConfig(before=before, limit=min(limit, 1000), commitment=self._settled)
        answer = self._transport.call(
            requests.GetSignaturesForAddress(address, config), responses.GetSignaturesForAddressResp
        ).value
        final = TransactionConfirmationStatus.Finalized
        return [
            HistoryEntry(e.signature, e.slot, e.block_time, e.err is not None, e.confirmation_status == final)
            for e in answer
        ]

    @_readable
    def final_slot(self) -> int:
        """The newest slot that can no longer vanish."""
        request = requests.GetSlot(RpcContextConfig(CommitmentLevel.Finalized))
        return self._transport.call(request, responses.GetSlotResp).value

    @_readable
    def airdrop(self, key: Pubkey, lamports: int) -> Signature:
        """Ask the cluster's faucet for `lamports`. Raises TransactionFailed if it gives none."""
        try:
            request = requests.RequestAirdrop(key, lamports, RpcRequestAirdropConfig(commitment=self._commitment))
            # Not repeated once sent: a second request is a second airdrop.
            return self._transport.call(request, responses.RequestAirdropResp, repeat=False).value
        except RpcError as error:
            raise TransactionFailed(
                f"The faucet of {self._shown} paid nothing: {error.problem}",
                "Request less, try later, or use https://faucet.solana.com on devnet.",
            ) from None

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        self._transport.close()

    @_readable
    def _final(self) -> tuple[int, int]:
        """Slot and height of the newest final block, as one node knows them."""
        request = requests.GetEpochInfo(RpcContextConfig(CommitmentLevel.Finalized))
        found = self._transport.call(request, responses.GetEpochInfoResp).value
        return found.absolute_slot, found.block_height

    @_readable
    def _status(self, signature: Signature) -> tuple[int, TransactionStatus | None]:
        """The slot that the answering node has come to, and what it knows."""
        config = RpcSignatureStatusConfig(search_transaction_history=True)
        request = requests.GetSignatureStatuses([signature], config)
        answer = self._transport.call(request, responses.GetSignatureStatusesResp)
        if len(answer.value) != 1:
            raise self._transport.nonsense(f"{len(answer.value)} statuses for one signature")
        return answer.context.slot, answer.value[0]

    @_readable
    def _landed(self, signature: Signature, *, final: bool = False) -> tuple[TransactionReceipt, object] | None:
        """A landed transaction's receipt and JSON error."""
        commitment = CommitmentLevel.Finalized if final else self._settled
        config = RpcTransactionConfig(UiTransactionEncoding.Base64, commitment, 0)
        found = self._transport.call(requests.GetTransaction(signature, config), responses.GetTransactionResp).value
        if found is None:
            return None
        tx, meta = found.transaction.transaction, found.transaction.meta
        if not isinstance(tx, VersionedTransaction) or meta is None or tx.signatures[:1] != [signature]:
            raise self._transport.nonsense("another transaction than the one asked for")
        if not meta.pre_balances or not meta.post_balances:
            raise self._transport.nonsense("a transaction that nobody paid for")
        error = None if meta.err is None else error_json(meta.err)
        return TransactionReceipt(
            signature=signature,
            slot=found.slot,
            block_time=found.block_time,
            fee=meta.fee,
            paid=meta.pre_balances[0] - meta.post_balances[0],
            error=None if error is None else error_text(error),
            program_error=program_error_of(error),
            logs=tuple(meta.log_messages or ()),
            transaction=bytes(tx),
        ), error

    @_readable
    def _broadcast(self, wire: bytes, *, skip_preflight: bool) -> None:
        config = RpcSendTransactionConfig(
            skip_preflight=skip_preflight,
            preflight_commitment=self._commitment,
            max_retries=0 if skip_preflight else None,
        )
        self._transport.call(requests.SendRawTransaction(wire, config), responses.SendTransactionResp)


def _rejected(error: RpcError) -> TransactionRejected | None:
    """The transaction error inside a node's refusal, if it is one."""
    if error.code != _PREFLIGHT_FAILURE or not isinstance(error.data, dict) or error.data.get("err") is None:
        return None
    logs, units = error.data.get("logs"), error.data.get("unitsConsumed")
    return TransactionRejected(
        error.data["err"],
        tuple(line for line in logs if isinstance(line, str)) if isinstance(logs, list) else (),
        units if isinstance(units, int) else 0,
    )
