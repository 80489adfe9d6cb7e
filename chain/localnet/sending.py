"""The local node's methods that send and simulate transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from solders.hash import Hash, ParseHashError
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.errors import TransactionFailed
from chain.localnet.context import NodeContext
from chain.localnet.parameters import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    PREFLIGHT_FAILURE,
    Params,
    Refusal,
    bytes_of,
    choice,
    commitment,
    flag,
    key_of,
    transaction_of,
)
from chain.localnet.shapes import node_words, ui_inner, ui_loaded, ui_return_data, ui_token_balances
from chain.network.base import FEE_PER_SIGNATURE, MAX_TRANSACTION, TransactionRejected
from chain.network.vm import SimulationOutcome

_MAX_FEE_KEYS = 128


class SendingMethods:
    """Each method is a function from parameters to a result."""

    def __init__(self, context: NodeContext) -> None:
        self._context, self._network = context, context.network
        self.table: dict[str, Callable[[Params], object]] = {
            "getLatestBlockhash": self._latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getFeeForMessage": self._fee,
            "getRecentPrioritizationFees": self._priority_fees,
            "requestAirdrop": self._airdrop,
            "sendTransaction": self._send,
            "simulateTransaction": self._simulate,
        }

    def _latest_blockhash(self, params: Params) -> object:
        slot, found = self._context.slot(params.config(0)), self._network.latest_blockhash()
        return self._context.at(
            slot, {"blockhash": str(found.hash), "lastValidBlockHeight": found.last_valid_block_height}
        )

    def _is_blockhash_valid(self, params: Params) -> object:
        try:
            blockhash = Hash.from_string(params.text(0))
        except (ValueError, ParseHashError):
            raise Refusal(INVALID_PARAMS, "WrongSize") from None
        slot = self._context.slot(params.config(1))
        return self._context.at(slot, self._network.blockhash_valid(blockhash))

    def _fee(self, params: Params) -> object:
        try:
            message = from_bytes_versioned(bytes_of(params.get(0), "base64", MAX_TRANSACTION))
        except ValueError as error:
            raise Refusal(INVALID_PARAMS, f"failed to deserialize VersionedMessage: {error}") from None
        if not isinstance(message, Message | MessageV0):
            raise Refusal(INVALID_PARAMS, "Invalid params: this message version is not supported")
        slot, signers, fee = self._context.slot(params.config(1)), message.header.num_required_signatures, None
        if self._network.blockhash_valid(message.recent_blockhash):
            unsigned = VersionedTransaction.populate(message, [Signature.default()] * signers)
            # The VM names no fee for a payer that cannot pay it.
            fee = self._network.run(unsigned).fee or signers * FEE_PER_SIGNATURE
        return self._context.at(slot, fee)

    def _priority_fees(self, params: Params) -> object:
        if params.get(0) is not None:
            for key in params.items(0, _MAX_FEE_KEYS):
                key_of(key)
        return [{"slot": self._network.clock().slot, "prioritizationFee": 0}]

    def _airdrop(self, params: Params) -> object:
        key, lamports = params.key(0), params.number(1)
        params.config(2)
        try:
            return str(self._network.airdrop(key, lamports))
        except TransactionFailed as error:
            raise Refusal(INTERNAL_ERROR, error.message) from None

    def _send(self, params: Params) -> object:
        config = params.config(1)
        tx = transaction_of(params.get(0), config)
        skip = flag(config, "skipPreflight")
        commitment({"commitment": config.get("preflightCommitment")})
        self._context.slot(config)
        try:
            return str(self._network.submit(tx, preflight=not skip))
        except TransactionRejected as rejected:
            if skip:  # a node forwards it and only its status tells
                return str(tx.signatures[0])
            tried = self._network.run(tx) if rejected.logs else SimulationOutcome(rejected.error)
            told = self._simulated(tried, {})
            untold = dict.fromkeys(
                ("preBalances", "postBalances", "preTokenBalances", "postTokenBalances", "loadedAddresses")
            )
            failed = {"err": rejected.error, "logs": rejected.logs, "unitsConsumed": rejected.units}
            raise Refusal(
                PREFLIGHT_FAILURE,
                f"Transaction simulation failed: {node_words(rejected.error)}",
                told | untold | failed,
            ) from None

    def _simulate(self, params: Params) -> object:
        config = params.config(1)
        tx = transaction_of(params.get(0), config)
        verify, replace = flag(config, "sigVerify"), flag(config, "replaceRecentBlockhash")
        inner = flag(config, "innerInstructions")
        if verify and replace:
            raise Refusal(INVALID_PARAMS, "sigVerify may not be used with replaceRecentBlockhash")
        slot = self._context.slot(config)
        wanted = config.get("accounts") or {"addresses": []}
        addresses = wanted.get("addresses") if isinstance(wanted, dict) else None
        if not isinstance(addresses, list):
            raise Refusal(INVALID_PARAMS, "Invalid params: accounts must list addresses")
        encoding = choice(wanted, "encoding", "base64", ("binary", "base58", "base64", "base64+zstd", "jsonParsed"))
        if encoding in ("binary", "base58"):
            raise Refusal(INVALID_PARAMS, "base58 encoding not supported")
        if len(addresses) > (limit := len(tx.message.account_keys)):
            raise Refusal(INVALID_PARAMS, f"Too many accounts provided; max {limit}")
        watch = [key_of(address) for address in addresses]
        outcome = self._network.run(tx, watch=watch, signatures=verify, fresh=not replace)
        value = self._simulated(outcome, {"encoding": encoding}, watch, inner=inner)
        if replace:
            blockhash = self._network.latest_blockhash()
            value["replacementBlockhash"] = {
                "blockhash": str(blockhash.hash),
                "lastValidBlockHeight": blockhash.last_valid_block_height,
            }
        return self._context.at(slot, value)

    def _simulated(
        self,
        outcome: SimulationOutcome,
        config: Mapping[str, object],
        watch: Sequence[Pubkey] = (),
        *,
        inner: bool = False,
    ) -> dict[str, object]:
        keys = outcome.keys
        shown: dict[str, object] = {
            "err": outcome.error,
            "logs": outcome.logs,
            "accounts": [self._context.account(outcome.accounts.get(key), config, key) for key in watch] or None,
            "unitsConsumed": outcome.units,
            "loadedAccountsDataSize": outcome.loaded_size,
            "returnData": ui_return_data(outcome.returned),
            "innerInstructions": ui_inner(outcome.inner, keys.all, parsed=True) if inner and keys else None,
            "replacementBlockhash": None,
            "fee": outcome.fee,
            "loadedAddresses": ui_loaded((keys.loaded_writable, keys.loaded_readonly) if keys else ((), ())),
            "preBalances": None,
            "postBalances": None,
            "preTokenBalances": None,
            "postTokenBalances": None,
        }
        if outcome.pre:
            shown |= {
                "preBalances": outcome.pre,
                "postBalances": outcome.post,
                "preTokenBalances": ui_token_balances(outcome.tokens, after=False, kept=False),
                "postTokenBalances": ui_token_balances(outcome.tokens, after=True, kept=False),
            }
        return shown
