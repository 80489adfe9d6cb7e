"""The JSON-RPC methods of the local node: from a request, whatever it holds, to an answer of a real node's shape.

The state is always final, so every commitment gives the same. What a real node knows and this one does not (votes,
stakes, leaders, token balances in transaction metadata) is the standard "method not found" or null.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from solders.hash import Hash, ParseHashError
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.errors import ChainError, TransactionFailed
from chain.localnet.parameters import (
    BLOCK_NOT_AVAILABLE,
    CONTEXT_NOT_REACHED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_MEMCMP,
    METHOD_NOT_FOUND,
    PREFLIGHT_FAILURE,
    SIGNATURE_FAILURE,
    UNSUPPORTED_VERSION,
    Params,
    Refusal,
    bytes_of,
    choice,
    flag,
    key_of,
    number,
    octets,
    signature_of,
    transaction_of,
)
from chain.localnet.shapes import (
    TOKEN_PROGRAMS,
    mint_of,
    node_words,
    token_account,
    token_amount,
    ui_account,
    ui_return_data,
    ui_status,
    ui_transaction,
)
from chain.network.base import FEE_PER_SIGNATURE, MAX_TRANSACTION, Account, TransactionRejected
from chain.network.embedded import SLOTS_PER_EPOCH, EmbeddedNetwork
from chain.network.ledger import LandedTransaction
from chain.network.vm import SimulationOutcome

VERSION = "3.0.0"  # the Agave release whose shapes these are
_MAX_ACCOUNTS, _MAX_STATUSES, _MAX_SIGNATURES, _MAX_BLOCKS = 100, 256, 1_000, 500_000
_MAX_ACCOUNT_SIZE = 10 << 20  # bytes

_log = logging.getLogger(__name__)


class Methods:
    """The JSON-RPC methods over one network, each a function from parameters to a result."""

    def __init__(self, network: EmbeddedNetwork) -> None:
        self._network = network
        self.table: dict[str, Callable[[Params], object]] = {
            "getHealth": lambda p: "ok",
            "getVersion": lambda p: {"solana-core": VERSION, "feature-set": 0},
            "getSlot": lambda p: self._slot(p.config(0)),
            "getBlockHeight": lambda p: network.block_height(),
            "getEpochInfo": self._epoch_info,
            "getGenesisHash": lambda p: str(network.genesis_hash),
            "getFirstAvailableBlock": lambda p: 0,
            "getTransactionCount": lambda p: network.transaction_count(),
            "getLatestBlockhash": self._latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getFeeForMessage": self._fee,
            "getRecentPrioritizationFees": lambda p: [{"slot": network.clock().slot, "prioritizationFee": 0}],
            "getBalance": lambda p: self._context(p.config(1), network.balance(p.key(0))),
            "getAccountInfo": self._account_info,
            "getMultipleAccounts": self._multiple_accounts,
            "getProgramAccounts": self._program_accounts,
            "getTokenAccountBalance": self._token_balance,
            "getTokenSupply": self._token_supply,
            "getTokenAccountsByOwner": self._token_accounts,
            "getMinimumBalanceForRentExemption": lambda p: network.rent(p.number(0, _MAX_ACCOUNT_SIZE)),
            "requestAirdrop": self._airdrop,
            "sendTransaction": self._send,
            "simulateTransaction": self._simulate,
            "getSignatureStatuses": self._statuses,
            "getSignaturesForAddress": self._signatures,
            "getTransaction": self._transaction,
            "getBlock": self._block,
            "getBlocks": self._blocks,
            "getBlockTime": self._block_time,
        }

    def answer(self, request: object) -> dict[str, object] | None:
        """One request's answer; None for a notification, which gets none. Never raises."""
        identity = request.get("id") if isinstance(request, dict) else None
        answer: dict[str, object] = {"jsonrpc": "2.0"}
        try:
            if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
                raise Refusal(INVALID_REQUEST, "Invalid request")
            if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
                identity = None
                raise Refusal(INVALID_REQUEST, "Invalid request")
            name, params = request.get("method"), request.get("params")
            if not isinstance(name, str):
                raise Refusal(INVALID_REQUEST, "Invalid request")
            if name not in self.table:
                raise Refusal(METHOD_NOT_FOUND, "Method not found")
            answer["result"] = self.table[name](Params([] if params is None else params))
            if "id" not in request:
                return None
        except Refusal as refusal:
            answer["error"] = {"code": refusal.code, "message": str(refusal)}
            if refusal.data is not None:
                answer["error"] |= {"data": refusal.data}  # type: ignore[operator]
        except ChainError as error:
            answer["error"] = {"code": INTERNAL_ERROR, "message": error.message}
        except Exception:
            _log.exception("a request to the local node failed")
            answer["error"] = {"code": INTERNAL_ERROR, "message": "Internal error"}
        return answer | {"id": identity}

    def _slot(self, config: Mapping[str, object]) -> int:
        slot = self._network.clock().slot
        if slot < number(config, "minContextSlot", 0):
            raise Refusal(CONTEXT_NOT_REACHED, "Minimum context slot has not been reached", {"contextSlot": slot})
        return slot

    def _context(self, config: Mapping[str, object], value: object) -> object:
        return {"context": {"slot": self._slot(config), "apiVersion": VERSION}, "value": value}

    def _decimals(self, mint: Pubkey) -> int:
        found = mint_of(self._network.account(mint))
        return found.decimals if found else 0

    def _ui_account(self, account: Account | None, config: Mapping[str, object]) -> object:
        return None if account is None else ui_account(account, config, self._decimals)

    def _keyed(self, found: list[tuple[Pubkey, Account]], config: Mapping[str, object]) -> list[object]:
        return [{"pubkey": str(key), "account": self._ui_account(account, config)} for key, account in found]

    def _epoch_info(self, params: Params) -> object:
        slot = self._slot(params.config(0))
        epoch, index = divmod(slot, SLOTS_PER_EPOCH)
        return {
            "absoluteSlot": slot,
            "blockHeight": self._network.block_height(),
            "epoch": epoch,
            "slotIndex": index,
            "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": self._network.transaction_count(),
        }

    def _latest_blockhash(self, params: Params) -> object:
        found = self._network.latest_blockhash()
        value = {"blockhash": str(found.hash), "lastValidBlockHeight": found.last_valid_block_height}
        return self._context(params.config(0), value)

    def _is_blockhash_valid(self, params: Params) -> object:
        try:
            blockhash = Hash.from_string(params.text(0))
        except (ValueError, ParseHashError):
            raise Refusal(INVALID_PARAMS, "Invalid param: Invalid") from None
        return self._context(params.config(1), self._network.blockhash_valid(blockhash))

    def _fee(self, params: Params) -> object:
        try:
            message = from_bytes_versioned(bytes_of(params.get(0), "base64", MAX_TRANSACTION))
        except ValueError as error:
            raise Refusal(INVALID_PARAMS, f"failed to deserialize VersionedMessage: {error}") from None
        if not isinstance(message, Message | MessageV0):
            raise Refusal(INVALID_PARAMS, "Invalid params: this message version is not supported")
        signers = message.header.num_required_signatures
        fee = None
        if self._network.blockhash_valid(message.recent_blockhash):
            unsigned = VersionedTransaction.populate(message, [Signature.default()] * signers)
            # The VM names no fee for a payer that cannot pay it.
            fee = self._network.run(unsigned).fee or signers * FEE_PER_SIGNATURE
        return self._context(params.config(1), fee)

    def _account_info(self, params: Params) -> object:
        config = params.config(1)
        return self._context(config, self._ui_account(self._network.account(params.key(0)), config))

    def _multiple_accounts(self, params: Params) -> object:
        keys, config = params.get(0), params.config(1)
        if not isinstance(keys, list) or len(keys) > _MAX_ACCOUNTS:
            raise Refusal(INVALID_PARAMS, f"Too many inputs provided; max {_MAX_ACCOUNTS}")
        found = self._network.accounts([key_of(key) for key in keys])
        return self._context(config, [self._ui_account(account, config) for account in found])

    def _program_accounts(self, params: Params) -> object:
        config = params.config(1)
        filters = config.get("filters") or []
        if not isinstance(filters, list) or len(filters) > 4:
            raise Refusal(INVALID_PARAMS, "Too many filters provided; max 4")
        size: int | None = None
        memcmp = []
        for item in filters:
            match item:
                case {"dataSize": wanted}:
                    # No account has two sizes.
                    size = number({"dataSize": wanted}, "dataSize") if size in (None, wanted) else -1
                case {"memcmp": {"offset": _, "bytes": wanted} as compare}:
                    encoding = choice(compare, "encoding", "base58", ("base58", "base64", "bytes"))
                    raw = octets(wanted) if encoding == "bytes" else bytes_of(wanted, encoding, MAX_MEMCMP)
                    memcmp.append((number(compare, "offset"), raw))
                case "tokenAccountState" | {"tokenAccountState": _}:
                    memcmp.append((108, b"\1"))
                case _:
                    raise Refusal(INVALID_PARAMS, "Invalid params: a filter is dataSize or memcmp")
        found = self._network.program_accounts(params.key(0), size=size, memcmp=memcmp)
        shown = self._keyed(found, config)
        return self._context(config, shown) if flag(config, "withContext") else shown

    def _token_balance(self, params: Params) -> object:
        token = token_account(self._network.account(params.key(0)))
        if token is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: not a Token account")
        return self._context(params.config(1), token_amount(token.amount, self._decimals(token.mint)))

    def _token_supply(self, params: Params) -> object:
        mint = mint_of(self._network.account(params.key(0)))
        if mint is None:
            raise Refusal(INVALID_PARAMS, "Invalid param: not a Token mint")
        return self._context(params.config(1), token_amount(mint.supply, mint.decimals))

    def _token_accounts(self, params: Params) -> object:
        owner, config = params.key(0), params.config(2)
        memcmp = [(32, bytes(owner))]
        match params.get(1):
            case {"mint": wanted}:
                mint = key_of(wanted)
                memcmp.append((0, bytes(mint)))
                account = self._network.account(mint)
                if account is None or mint_of(account) is None:
                    raise Refusal(INVALID_PARAMS, "Invalid param: could not find mint")
                program = account.owner
            case {"programId": wanted}:
                program = key_of(wanted)
                if program not in TOKEN_PROGRAMS:
                    raise Refusal(INVALID_PARAMS, "Invalid param: unrecognized Token program id")
            case _:
                raise Refusal(INVALID_PARAMS, "Invalid params: an object with mint or programId was expected")
        found = self._network.program_accounts(program, memcmp=memcmp)
        tokens = [(key, account) for key, account in found if token_account(account) is not None]
        return self._context(config, self._keyed(tokens, config))

    def _airdrop(self, params: Params) -> object:
        try:
            return str(self._network.airdrop(params.key(0), params.number(1)))
        except TransactionFailed as error:
            raise Refusal(INVALID_PARAMS, error.message) from None

    def _send(self, params: Params) -> object:
        config = params.config(1)
        tx = transaction_of(params.get(0), config)
        skip = flag(config, "skipPreflight")
        try:
            return str(self._network.submit(tx, preflight=not skip))
        except TransactionRejected as rejected:
            if skip:  # a node forwards it and only its status tells
                return str(tx.signatures[0])
            if rejected.error == "SignatureFailure":
                raise Refusal(SIGNATURE_FAILURE, "Transaction signature verification failure") from None
            raise Refusal(
                PREFLIGHT_FAILURE,
                f"Transaction simulation failed: {node_words(rejected.error)}",
                self._simulated(SimulationOutcome(rejected.error, rejected.logs, rejected.units), {}),
            ) from None

    def _simulate(self, params: Params) -> object:
        config = params.config(1)
        tx = transaction_of(params.get(0), config)
        verify, replace = flag(config, "sigVerify"), flag(config, "replaceRecentBlockhash")
        if verify and replace:
            raise Refusal(INVALID_PARAMS, "sigVerify may not be used with replaceRecentBlockhash")
        wanted = config.get("accounts") or {"addresses": []}
        addresses = wanted.get("addresses") if isinstance(wanted, dict) else None
        if not isinstance(addresses, list) or len(addresses) > _MAX_ACCOUNTS:
            raise Refusal(INVALID_PARAMS, f"Invalid params: accounts must list at most {_MAX_ACCOUNTS} addresses")
        watch = [key_of(address) for address in addresses]
        outcome = self._network.run(tx, watch=watch, signatures=verify, fresh=not replace)
        if outcome.error == "SignatureFailure":
            raise Refusal(SIGNATURE_FAILURE, "Transaction signature verification failure")
        value = self._simulated(outcome, wanted | {"encoding": wanted.get("encoding") or "base64"}, watch)
        if replace:
            blockhash = self._network.latest_blockhash()
            value["replacementBlockhash"] = {
                "blockhash": str(blockhash.hash),
                "lastValidBlockHeight": blockhash.last_valid_block_height,
            }
        return self._context(config, value)

    def _simulated(
        self, outcome: SimulationOutcome, config: Mapping[str, object], watch: list[Pubkey] | None = None
    ) -> dict[str, object]:
        accounts = [self._ui_account(outcome.accounts.get(key), config) for key in watch or ()]
        return {
            "err": outcome.error,
            "logs": outcome.logs,
            "accounts": accounts if watch else None,
            "unitsConsumed": outcome.units,
            "loadedAccountsDataSize": None,
            "returnData": ui_return_data(outcome.returned),
            "innerInstructions": None,
            "replacementBlockhash": None,
        }

    def _statuses(self, params: Params) -> object:
        signatures = params.get(0)
        if not isinstance(signatures, list) or len(signatures) > _MAX_STATUSES:
            raise Refusal(INVALID_PARAMS, f"Too many inputs provided; max {_MAX_STATUSES}")
        records = [self._network.record(signature_of(signature)) for signature in signatures]
        value = [
            record
            and {
                "slot": record.slot,
                "confirmations": None,
                "status": ui_status(record.error),
                "err": record.error,
                "confirmationStatus": "finalized",
            }
            for record in records
        ]
        return self._context({}, value)

    def _signatures(self, params: Params) -> object:
        config = params.config(1)
        before, until = config.get("before"), config.get("until")
        limit = number(config, "limit", _MAX_SIGNATURES, limit=_MAX_SIGNATURES)
        if not limit:
            raise Refusal(INVALID_PARAMS, f"Invalid limit; max {_MAX_SIGNATURES}")
        found = self._network.history(
            params.key(0),
            limit=limit,
            before=None if before is None else signature_of(before),
            until=None if until is None else signature_of(until),
        )
        return [
            {
                "signature": str(record.signature),
                "slot": record.slot,
                "err": record.error,
                "memo": None,
                "blockTime": record.block_time,
                "confirmationStatus": "finalized",
            }
            for record in found
        ]

    def _transaction(self, params: Params) -> object:
        encoded = params.get(1)
        config = {"encoding": encoded} if isinstance(encoded, str) else params.config(1)
        record = self._network.record(params.signature(0))
        if record is None:
            return None
        return {"slot": record.slot, "blockTime": record.block_time, **self._encoded(record, config)}

    def _encoded(self, record: LandedTransaction, config: Mapping[str, object]) -> dict[str, object]:
        encoding = choice(config, "encoding", "json", ("json", "base64", "base58", "binary"))
        versions = config.get("maxSupportedTransactionVersion") is not None
        shown = ui_transaction(record, encoding, True)
        if not versions and shown.pop("version") == 0:
            raise Refusal(
                UNSUPPORTED_VERSION,
                "Transaction version (0) is not supported by the requesting client. Please try the request"
                ' again with the following configuration parameter: "maxSupportedTransactionVersion": 0',
                0,
            )
        return shown

    def _block(self, params: Params) -> object:
        slot, encoded = params.number(0), params.get(1)
        config = {"encoding": encoded} if isinstance(encoded, str) else params.config(1)
        details = choice(config, "transactionDetails", "full", ("full", "signatures", "none"))
        block, parent = self._network.block(slot), self._network.block(max(0, slot - 1))
        if block is None or parent is None:
            raise Refusal(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")
        record = self._network.record_at(slot)
        shown: dict[str, object] = {
            "blockhash": str(Hash.from_bytes(block.hash)),
            "previousBlockhash": str(Hash.from_bytes(parent.hash)),
            "parentSlot": parent.slot,
            "blockHeight": self._network.height_of(block),
            "blockTime": block.ms // 1000,
        }
        if details == "full":
            shown["transactions"] = [self._encoded(record, config)] if record else []
        elif details == "signatures":
            shown["signatures"] = [str(record.signature)] if record else []
        if config.get("rewards") is not False:
            shown["rewards"] = []
        return shown

    def _blocks(self, params: Params) -> object:
        first, tip = params.number(0), self._network.clock().slot
        last = tip if params.get(1) is None or isinstance(params.get(1), dict) else params.number(1)
        last = min(last, tip)
        if last - first > _MAX_BLOCKS:
            raise Refusal(INVALID_PARAMS, f"Slot range too large; max {_MAX_BLOCKS}")
        return list(range(first, last + 1))

    def _block_time(self, params: Params) -> object:
        block = self._network.block(params.number(0))
        if block is None:
            raise Refusal(BLOCK_NOT_AVAILABLE, f"Block not available for slot {params.number(0)}")
        return block.ms // 1000
