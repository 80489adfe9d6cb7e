"""The local node's methods that look up transactions and blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from solders.hash import Hash

from chain.localnet.context import NodeContext
from chain.localnet.parameters import (
    BLOCK_NOT_AVAILABLE,
    INVALID_PARAMS,
    UNSUPPORTED_VERSION,
    Params,
    Refusal,
    choice,
    commitment,
    number,
    signature_of,
)
from chain.localnet.shapes import memo_of, ui_status, ui_transaction
from chain.network.ledger import LandedTransaction

_MAX_STATUSES, _MAX_SIGNATURES, _MAX_BLOCKS = 256, 1_000, 500_000
_ENCODINGS = ("json", "jsonParsed", "base64", "base58", "binary")
_DETAILS = ("full", "accounts", "signatures", "none")


class HistoryMethods:
    """Each method is a function from parameters to a result."""

    def __init__(self, context: NodeContext) -> None:
        self._context, self._network = context, context.network
        self.table: dict[str, Callable[[Params], object]] = {
            "getSignatureStatuses": self._statuses,
            "getSignaturesForAddress": self._signatures,
            "getTransaction": self._transaction,
            "getBlock": self._block,
            "getBlocks": self._blocks,
            "getBlocksWithLimit": self._blocks_with_limit,
            "getBlockTime": self._block_time,
        }

    def _statuses(self, params: Params) -> object:
        signatures = [signature_of(one) for one in params.items(0, _MAX_STATUSES)]
        params.config(1)
        value = [
            record
            and {
                "slot": record.slot,
                "confirmations": None,
                "status": ui_status(record.error),
                "err": record.error,
                "confirmationStatus": "finalized",
            }
            for record in map(self._network.record, signatures)
        ]
        return self._context.at(self._network.clock().slot, value)

    def _signatures(self, params: Params) -> object:
        address, config = params.key(0), params.config(1)
        before, until = config.get("before"), config.get("until")
        limit = number(config, "limit", _MAX_SIGNATURES)
        if not 0 < limit <= _MAX_SIGNATURES:
            raise Refusal(INVALID_PARAMS, f"Invalid limit; max {_MAX_SIGNATURES}")
        commitment(config, confirmed=True)
        self._context.slot(config)
        found = self._network.history(
            address,
            limit=limit,
            before=None if before is None else signature_of(before),
            until=None if until is None else signature_of(until),
        )
        return [
            {
                "signature": str(record.signature),
                "slot": record.slot,
                "err": record.error,
                "memo": memo_of(record),
                "blockTime": record.block_time,
                "confirmationStatus": "finalized",
                "transactionIndex": 0,
            }
            for record in found
        ]

    def _transaction(self, params: Params) -> object:
        signature, config = params.signature(0), _config(params, 1)
        record = self._network.record(signature)
        if record is None:
            return None
        shown = _versioned(record, config, "full")
        return {"slot": record.slot, "blockTime": record.block_time, "transactionIndex": 0, **shown}

    def _block(self, params: Params) -> object:
        slot, config = params.number(0), _config(params, 1)
        details = choice(config, "transactionDetails", "full", _DETAILS)
        with self._network.reading() as ledger:
            block, parent = self._network.block(slot), self._network.block(max(0, slot - 1))
            record = ledger.record_at(slot)
        if block is None or parent is None:
            raise Refusal(BLOCK_NOT_AVAILABLE, f"Block not available for slot {slot}")
        shown: dict[str, object] = {
            "blockhash": str(Hash.from_bytes(block.hash)),
            "previousBlockhash": str(Hash.from_bytes(parent.hash)),
            "parentSlot": parent.slot,
            "blockHeight": self._network.height_of(block),
            "blockTime": block.ms // 1000,
        }
        if details in ("full", "accounts"):
            shown["transactions"] = [_versioned(record, config, details)] if record else []
        elif details == "signatures":
            shown["signatures"] = [str(record.signature)] if record else []
        if config.get("rewards") is not False:
            shown["rewards"] = []
        return shown

    def _blocks(self, params: Params) -> object:
        first, tip = params.number(0), self._network.clock().slot
        is_open = params.get(1) is None or isinstance(params.get(1), dict)
        commitment(params.config(1 if isinstance(params.get(1), dict) else 2), confirmed=True)
        last = min(tip if is_open else params.number(1), tip)
        if last - first > _MAX_BLOCKS:
            raise Refusal(INVALID_PARAMS, f"Slot range too large; max {_MAX_BLOCKS}")
        return list(range(max(first, self._network.first_slot()), last + 1))

    def _blocks_with_limit(self, params: Params) -> object:
        first, limit = params.number(0), params.number(1)
        commitment(params.config(2), confirmed=True)
        if limit > _MAX_BLOCKS:
            raise Refusal(INVALID_PARAMS, f"Limit too large; max {_MAX_BLOCKS}")
        first = max(first, self._network.first_slot())
        return list(range(first, min(first + limit, self._network.clock().slot + 1)))

    def _block_time(self, params: Params) -> object:
        block = self._network.block(params.number(0))
        if block is None:
            raise Refusal(BLOCK_NOT_AVAILABLE, f"Block not available for slot {params.number(0)}")
        return block.ms // 1000


def _config(params: Params, index: int) -> Mapping[str, object]:
    """The options of a method that old clients gave an encoding alone."""
    encoding = params.get(index)
    config = {"encoding": encoding} if isinstance(encoding, str) else params.config(index)
    choice(config, "encoding", "json", _ENCODINGS)
    commitment(config, confirmed=True)
    return config


def _versioned(record: LandedTransaction, config: Mapping[str, object], details: str) -> dict[str, Any]:
    """A transaction; its version only where the client asked for versions, and then refused if it is a newer one."""
    shown = ui_transaction(record, choice(config, "encoding", "json", _ENCODINGS), details)
    if config.get("rewards") is False:
        shown["meta"] |= {"rewards": None}
    if config.get("maxSupportedTransactionVersion") is None and shown.pop("version") == 0:
        raise Refusal(
            UNSUPPORTED_VERSION,
            "Transaction version (0) is not supported by the requesting client. Please try the request"
            ' again with the following configuration parameter: "maxSupportedTransactionVersion": 0',
        )
    return shown
