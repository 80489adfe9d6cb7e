"""Any Solana cluster over JSON-RPC: solana-py's transport, solders' requests and typed answers.

Rules: every call ends within CALL_SECONDS, retries and waits included; a busy or broken connection (429, 5xx,
dropped, silent) is tried again after a growing, jittered pause, anything else is not; what was sent is
repeated byte for byte, so that it can land once only; it is dead only once a node that has seen a final block
past its blockhash's last one knows nothing of it; an answer has a bounded size and is believed only where
it parses as the type asked for. A local node is reached directly, whatever proxy the environment names.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from solana.exceptions import SolanaRpcException
from solana.rpc.async_http_provider import AsyncHTTPProvider
from solders.account_decoder import UiAccountEncoding
from solders.commitment_config import CommitmentLevel
from solders.errors import SerdeJSONError
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

from chain.errors import ChainError, NetworkUnreachable, TransactionFailed
from chain.network.base import (
    CLOCK_SYSVAR,
    CONFIRM_SECONDS,
    Account,
    Blockhash,
    Clock,
    HistoryEntry,
    Simulation,
    TransactionReceipt,
    TransactionRejected,
    account_of,
    error_json,
    error_text,
    matches,
    program_error_of,
    without_key,
)
from chain.program import PROGRAM_ID

CALL_SECONDS = 30.0
TRIES = 5
MAX_ANSWER = 64 << 20  # bytes
_PAUSE_SECONDS, _POLL_SECONDS, _REBROADCAST_SECONDS = 0.25, 0.4, 2.0
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
_BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_BUSY_CODES = frozenset({429, -32005, -32004, -32014, -32016})  # rate limit; node behind; block not there yet
_PREFLIGHT_FAILURE = -32002
_BASE64 = UiAccountEncoding.Base64

T = TypeVar("T", bound=responses.RPCResult)


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


class _Silent(NetworkUnreachable):
    """No answer of use; `maybe_done` where the request may have reached the node all the same."""

    maybe_done = True


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
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            usable = usable and not re.search(r"[\s\0-\x1f]", url)
        except ValueError:  # a port or an IPv6 address that is none
            usable = False
        if not usable:
            raise NetworkUnreachable(f"{url} is not a usable URL.", "Give one such as http://127.0.0.1:8899.")
        self.url = url
        self.name = without_key(name or url)
        self._shown = without_key(url)
        self.program_id = program_id
        here = parts.hostname in ("127.0.0.1", "::1", "localhost")
        self.is_local = here if is_local is None else is_local
        self._commitment = _COMMITMENTS[commitment]
        # Blocks and their transactions are not to be had below "confirmed".
        self._settled = _COMMITMENTS["confirmed" if commitment == "processed" else commitment]
        self._reached = _REACHED[commitment]
        self._call_seconds, self._sleep = call_seconds, sleep
        self._guard = threading.Lock()
        self._runner = asyncio.Runner()
        self._provider = AsyncHTTPProvider(url, max_transport_retries=0)
        self._provider.session = httpx2.AsyncClient(
            timeout=call_seconds,
            headers={"Accept-Encoding": "identity"},  # a compressed answer's size is not known before
            event_hooks={"response": [_bound]},
            trust_env=not here,
        )
        self._genesis: Hash | None = None
        self._rent: dict[int, int] = {}
        self._sent: dict[Signature, bytes] = {}

    @property
    def genesis_hash(self) -> Hash:
        """What tells this cluster from every other; asked once."""
        if self._genesis is None:
            self._genesis = self._call(requests.GetGenesisHash(), responses.GetGenesisHashResp).value
        return self._genesis

    def account(self, key: Pubkey) -> Account | None:
        """The account, or None where there is none."""
        return self.accounts([key])[0]

    def accounts(self, keys: Sequence[Pubkey]) -> list[Account | None]:
        """One entry per key, in order; of one moment per hundred."""
        config = RpcAccountInfoConfig(encoding=_BASE64, commitment=self._commitment)
        found: list[Account | None] = []
        for start in range(0, len(keys), _MAX_ACCOUNTS):
            some = list(keys[start : start + _MAX_ACCOUNTS])
            answer = self._call(requests.GetMultipleAccounts(some, config), responses.GetMultipleAccountsResp)
            if len(answer.value) != len(some):
                raise self._nonsense(f"{len(answer.value)} accounts for {len(some)} addresses")
            found += [account_of(account) if account else None for account in answer.value]
        return found

    def program_accounts(
        self, program: Pubkey, *, size: int | None = None, memcmp: Sequence[tuple[int, bytes]] = ()
    ) -> list[tuple[Pubkey, Account]]:
        """Accounts owned by `program` with exactly `size` data bytes that hold each (offset, bytes)."""
        filters: list[int | Memcmp] = [Memcmp(offset, want) for offset, want in memcmp]
        if size is not None:
            filters.append(size)
        config = RpcProgramAccountsConfig(RpcAccountInfoConfig(encoding=_BASE64, commitment=self._commitment), filters)
        answer = self._call(requests.GetProgramAccounts(program, config), responses.GetProgramAccountsResp)
        found = [(keyed.pubkey, account_of(keyed.account)) for keyed in answer.value]
        # A node is believed on its filters no more than on anything else.
        kept = [(key, account) for key, account in found if account.owner == program]
        kept = [(key, account) for key, account in kept if matches(account.data, size, memcmp)]
        return sorted(kept, key=lambda pair: bytes(pair[0]))

    def balance(self, key: Pubkey) -> int:
        """Lamports; 0 where there is no account."""
        request = requests.GetBalance(key, RpcContextConfig(self._commitment))
        return self._call(request, responses.GetBalanceResp).value

    def rent(self, size: int) -> int:
        """Lamports that exempt an account of `size` data bytes from rent; asked once per size."""
        if size not in self._rent:
            request = requests.GetMinimumBalanceForRentExemption(size, self._commitment)
            self._rent[size] = self._call(request, responses.GetMinimumBalanceForRentExemptionResp).value
        return self._rent[size]

    def clock(self) -> Clock:
        """The Clock sysvar: exactly what programs see."""
        account = self.account(CLOCK_SYSVAR)
        if account is None or len(account.data) < 40:
            raise self._nonsense("no Clock sysvar")
        slot, _, _, _, unix = struct.unpack_from("<QqQQq", account.data)
        return Clock(slot, unix)

    def latest_blockhash(self) -> Blockhash:
        """A blockhash to sign with."""
        request = requests.GetLatestBlockhash(RpcContextConfig(self._commitment))
        found = self._call(request, responses.GetLatestBlockhashResp).value
        return Blockhash(found.blockhash, found.last_valid_block_height)

    def block_hash(self, slot: int) -> Hash | None:
        """The blockhash of the first block at or after `slot`; None while there is no such block yet."""
        request = requests.GetBlocks(slot, slot + 1_000, self._settled)
        found = self._call(request, responses.GetBlocksResp).value
        if not found:
            return None
        if min(found) < slot:
            raise self._nonsense(f"block {min(found)} where those from {slot} on were asked for")
        config = RpcBlockConfig(
            transaction_details=TransactionDetails.None_,
            rewards=False,
            commitment=self._settled,
            max_supported_transaction_version=0,
        )
        block = self._call(requests.GetBlock(min(found), config), responses.GetBlockResp).value
        return None if block is None else block.blockhash

    def priority_fees(self, keys: Sequence[Pubkey]) -> list[int]:
        """Micro-lamports per compute unit that recent transactions writing `keys` paid at least, per block."""
        request = requests.GetRecentPrioritizationFees(list(keys)[:_MAX_FEE_KEYS])
        answer = self._call(request, responses.GetRecentPrioritizationFeesResp)
        return [entry.prioritization_fee for entry in answer.value]

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        """Run `tx` on the state of now and keep nothing; neither signatures nor blockhash are checked."""
        accounts = RpcSimulateTransactionAccountsConfig(list(watch), _BASE64) if watch else None
        config = RpcSimulateTransactionConfig(
            replace_recent_blockhash=True, commitment=self._commitment, accounts=accounts
        )
        request = requests.SimulateVersionedTransaction(tx, config)
        found = self._call(request, responses.SimulateTransactionResp).value
        error = None if found.err is None else error_json(found.err)
        states = found.accounts if error is None and found.accounts is not None else []
        if error is None and len(states) != len(watch):
            raise self._nonsense(f"{len(states)} accounts for {len(watch)} addresses")
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

        Where an answer was lost the node may have taken it: that is no failure, and `confirm` tells.
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
        except _Silent as silence:
            if not silence.maybe_done:
                del self._sent[signature]
                raise
        return signature

    def confirm(
        self, signature: Signature, last_valid_block_height: int, *, timeout: float = CONFIRM_SECONDS
    ) -> TransactionReceipt:
        """Wait until it has landed at the commitment, sending the same bytes again now and then.

        Raises TransactionRejected where it failed on chain, TransactionFailed where its blockhash has expired
        without it (it can never land), NetworkUnreachable where `timeout` seconds left that open. A node that
        gives no answer of use meanwhile is asked again until then.
        """
        trouble = ""
        deadline = time.monotonic() + timeout
        again = time.monotonic() + _REBROADCAST_SECONDS
        while time.monotonic() < deadline:
            try:
                receipt, known = self._look(signature, last_valid_block_height)
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
            "Look that transaction up before sending anything again.",
        )

    def _look(self, signature: Signature, last_valid_block_height: int) -> tuple[TransactionReceipt | None, bool]:
        """The receipt, if it has landed by now, and whether any node knows of the transaction."""
        # The height first: were it read last, the transaction could land in between.
        slot, height = self._final()
        seen, status = self._status(signature)
        # Only a node that has come as far as that height was read at can say that there is nothing.
        if status is None and height > last_valid_block_height and seen >= slot:
            self._sent.pop(signature, None)
            raise TransactionFailed(
                f"The transaction {signature} did not land before its blockhash expired; it never will.",
                "Sign it again with a fresh blockhash and send it.",
            )
        if status is None or status.confirmation_status not in self._reached:
            return None, status is not None
        receipt, error = self._landed(signature) or (None, None)
        if receipt is not None:
            self._sent.pop(signature, None)
        if receipt is not None and error is not None:
            raise TransactionRejected(error, receipt.logs, where="on chain")
        return receipt, True

    def transaction(self, signature: Signature) -> TransactionReceipt | None:
        """A landed transaction, or None where this node knows of none."""
        landed = self._landed(signature)
        return landed[0] if landed else None

    def signatures(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[Signature]:
        """Transactions that name `address`, newest first; `before` starts below that one."""
        found: list[Signature] = []
        while len(found) < limit:
            page = min(1000, limit - len(found))
            config = RpcSignaturesForAddressConfig(before=before, limit=page, commitment=self._commitment)
            request = requests.GetSignaturesForAddress(address, config)
            answer = self._call(request, responses.GetSignaturesForAddressResp).value
            found += [entry.signature for entry in answer[:page]]
            if len(answer) < page:
                break
            before = found[-1]
        return found

    def entries(self, address: Pubkey, *, limit: int = 1000, before: Signature | None = None) -> list[HistoryEntry]:
        """One page of `signatures`, at most 1,000, with slot, time and fate of each."""
        config = RpcSignaturesForAddressConfig(before=before, limit=min(limit, 1000), commitment=self._settled)
        answer = self._call(
            requests.GetSignaturesForAddress(address, config), responses.GetSignaturesForAddressResp
        ).value
        final = TransactionConfirmationStatus.Finalized
        return [
            HistoryEntry(e.signature, e.slot, e.block_time, e.err is not None, e.confirmation_status == final)
            for e in answer
        ]

    def final_slot(self) -> int:
        """The newest slot that can no longer vanish."""
        request = requests.GetSlot(RpcContextConfig(CommitmentLevel.Finalized))
        return self._call(request, responses.GetSlotResp).value

    def airdrop(self, key: Pubkey, lamports: int) -> Signature:
        """Ask the cluster's faucet for `lamports`. Raises TransactionFailed where it gives none."""
        try:
            request = requests.RequestAirdrop(key, lamports, RpcRequestAirdropConfig(commitment=self._commitment))
            # Not repeated once sent: a second request is a second airdrop.
            return self._call(request, responses.RequestAirdropResp, repeat=False).value
        except RpcError as error:
            raise TransactionFailed(
                f"The faucet of {self._shown} gave nothing: {error.problem}",
                "Ask for less, try later, or use https://faucet.solana.com on devnet.",
            ) from None

    def close(self) -> None:
        """Close the connection; closing twice is harmless."""
        with self._guard:
            if not self._provider.session.is_closed:
                self._runner.run(self._provider.close())
                self._runner.close()

    def _final(self) -> tuple[int, int]:
        """Slot and height of the newest final block, as one node knows them."""
        request = requests.GetEpochInfo(RpcContextConfig(CommitmentLevel.Finalized))
        found = self._call(request, responses.GetEpochInfoResp).value
        return found.absolute_slot, found.block_height

    def _status(self, signature: Signature) -> tuple[int, TransactionStatus | None]:
        """The slot that the answering node has come to, and what it knows."""
        config = RpcSignatureStatusConfig(search_transaction_history=True)
        request = requests.GetSignatureStatuses([signature], config)
        answer = self._call(request, responses.GetSignatureStatusesResp)
        if len(answer.value) != 1:
            raise self._nonsense(f"{len(answer.value)} statuses for one signature")
        return answer.context.slot, answer.value[0]

    def _landed(self, signature: Signature) -> tuple[TransactionReceipt, object] | None:
        """A landed transaction's receipt and JSON error."""
        config = RpcTransactionConfig(UiTransactionEncoding.Base64, self._settled, 0)
        found = self._call(requests.GetTransaction(signature, config), responses.GetTransactionResp).value
        if found is None:
            return None
        tx, meta = found.transaction.transaction, found.transaction.meta
        if not isinstance(tx, VersionedTransaction) or meta is None or tx.signatures[:1] != [signature]:
            raise self._nonsense("another transaction than the one asked for")
        if not meta.pre_balances or not meta.post_balances:
            raise self._nonsense("a transaction that nobody paid for")
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

    def _broadcast(self, wire: bytes, *, skip_preflight: bool) -> None:
        config = RpcSendTransactionConfig(
            skip_preflight=skip_preflight,
            preflight_commitment=self._commitment,
            max_retries=0 if skip_preflight else None,
        )
        self._call(requests.SendRawTransaction(wire, config), responses.SendTransactionResp)

    def _call(self, request: requests.Body, parser: type[T], *, repeat: bool = True) -> T:
        """One request, retried within the time limit while the node is busy or silent.

        Raises RpcError where the node refuses, NetworkUnreachable where no answer of this type comes.
        """
        deadline = time.monotonic() + self._call_seconds
        trouble = "no answer"
        doubt = False
        for attempt in range(TRIES):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return self._ask(request, parser, left)
            except RpcError as error:
                error.doubted = doubt
                raise
            except NetworkUnreachable as error:  # asking again cannot mend it, but an earlier try may have been taken
                raise _Silent(error.problem, error.cure) if doubt else error from None
            except _Busy as busy:
                trouble = str(busy)
                doubt |= busy.maybe_done
                if not repeat and busy.maybe_done:
                    break
                pause = busy.after or _PAUSE_SECONDS * 2**attempt
                self._sleep(min(pause * random.uniform(0.75, 1.25), max(0.0, deadline - time.monotonic())))
        silence = _Silent(
            f"The RPC node {self._shown} does not answer: {trouble}.",
            "Start it with `chain localnet`, or use --network embedded."
            if self.is_local
            else "Check the connection, or use another node with --rpc-url URL.",
        )
        silence.maybe_done = doubt
        raise silence

    def _ask(self, request: requests.Body, parser: type[T], seconds: float) -> T:
        """One try. Raises _Busy where another may help."""
        try:
            with self._guard:
                call = asyncio.wait_for(self._provider.make_request_unparsed(request), seconds)
                raw = self._runner.run(call)
        except TimeoutError:
            raise _Busy(f"nothing within {seconds:.0f} s") from None
        except SolanaRpcException as error:
            cause = error.__cause__
            if isinstance(cause, httpx2.HTTPStatusError):
                status, after = cause.response.status_code, cause.response.headers.get("retry-after", "")
                if status in _BUSY_STATUS:
                    wait = float(after) if after.isdecimal() and len(after) < 4 else 0.0
                    raise _Busy(f"HTTP status {status}", wait, maybe_done=status != 429) from None
                raise NetworkUnreachable(
                    f"{self._shown} answers with HTTP status {status}, not as a Solana RPC node.",
                    "Check the URL, and that it carries the key your provider gave you.",
                ) from None
            refused = isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
            words = "connection refused or impossible" if refused else type(cause).__name__
            if isinstance(cause, httpx2.UnsupportedProtocol | httpx2.InvalidURL | _TooLarge):
                raise NetworkUnreachable(
                    f"{self._shown} cannot be used: {cause}.", "Check the URL, or ask another node."
                ) from None
            raise _Busy(words, maybe_done=not refused) from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise NetworkUnreachable(f"{self._shown} is not a usable URL: {error}.", "Correct it.") from None
        return self._parse(raw, parser)

    def _parse(self, raw: str, parser: type[T]) -> T:
        # solders drops code and message of errors it has no type for, so the envelope is read here.
        try:
            envelope = json.loads(raw)
        except (ValueError, RecursionError):
            envelope = None
        if not isinstance(envelope, dict):
            raise self._nonsense(f"{raw[:60]!r}")
        match envelope.get("error"):
            case {"code": int(code), "message": str(message), **more}:
                if code in _BUSY_CODES:
                    raise _Busy(message[:200].rstrip("."), maybe_done=False)
                raise RpcError(self._shown, code, message, more.get("data"))
            case None:
                pass
            case _:
                raise self._nonsense("an error without code and message")
        try:
            parsed = parser.from_json(raw)  # type: ignore[attr-defined]
        except SerdeJSONError as error:
            raise self._nonsense(f"no {parser.__name__}: {str(error)[:100]}") from None
        if not isinstance(parsed, parser):
            raise self._nonsense(f"no {parser.__name__}")
        return parsed

    def _nonsense(self, what: str) -> _Silent:
        return _Silent(
            f"{self._shown} does not answer as a Solana RPC node: {what}.",
            "Check the URL, or use another node with --rpc-url URL.",
        )


class _Busy(Exception):
    """No answer this time. `after`: seconds the node asks for; `maybe_done`: it may have got the request."""

    def __init__(self, what: str, after: float = 0.0, *, maybe_done: bool = True) -> None:
        super().__init__(what)
        self.after = after
        self.maybe_done = maybe_done


class _TooLarge(httpx2.ReadError):
    """An answer over MAX_ANSWER bytes, or one whose size in memory cannot be bounded."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > MAX_ANSWER:
                raise _TooLarge(f"its answer has over {MAX_ANSWER >> 20} MiB")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Before its body is read: bound an answer's size."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _TooLarge("its answer is compressed though that was not accepted")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


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
