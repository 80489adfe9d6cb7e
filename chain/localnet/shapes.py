"""Accounts, transactions and errors as a real node (Agave) shows them: values that json.dumps takes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from chain.localnet.instructions import MEMOS, parsed_instruction
from chain.localnet.parameters import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    UNSUPPORTED_VERSION,
    Refusal,
    base58,
    choice,
    number,
)
from chain.localnet.parsed import Decimals, parsed_account, token_amount
from chain.network.base import Account, error_text
from chain.network.execution import TokenBalance
from chain.network.ledger import LandedTransaction
from chain.network.vm import Inner

ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")


def ui_account(
    account: Account, config: Mapping[str, object], decimals: Decimals, key: Pubkey | None = None
) -> dict[str, object]:
    """An account in the encoding and slice asked for; base64 stands in where no parser knows it."""
    encoding = choice(config, "encoding", "binary", ENCODINGS)
    shown = parsed_account(key, account, decimals) if encoding == "jsonParsed" else None
    if shown is None:
        shown = _encoded(_piece(account.data, config.get("dataSlice")), encoding)
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "data": shown,
        "executable": account.executable,
        "rentEpoch": account.rent_epoch,
        "space": len(account.data),
    }


def _piece(data: bytes, piece: object) -> bytes:
    if piece is None:
        return data
    if not isinstance(piece, dict):
        raise Refusal(INVALID_PARAMS, "Invalid params: dataSlice must be an object")
    offset = number(piece, "offset")
    return data[offset : offset + number(piece, "length")]


def _encoded(data: bytes, encoding: str) -> object:
    if encoding in ("binary", "base58"):
        if len(data) > 128:
            raise Refusal(
                INVALID_REQUEST,
                "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.",
            )
        return base58(data) if encoding == "binary" else [base58(data), "base58"]
    if encoding == "base64+zstd":
        import pyarrow

        packed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
        return [base64.b64encode(packed).decode(), encoding]
    return [base64.b64encode(data).decode(), "base64"]


def ui_status(error: object) -> object:
    """A transaction's outcome in the older form that nodes still show."""
    return {"Ok": None} if error is None else {"Err": error}


def ui_return_data(returned: tuple[str, bytes] | None) -> object:
    """What a program returned: the program's address and the bytes."""
    if returned is None:
        return None
    return {"programId": returned[0], "data": [base64.b64encode(returned[1]).decode(), "base64"]}


def ui_token_balances(tokens: Sequence[TokenBalance], *, after: bool, kept: bool = True) -> list[object]:
    """The tokens of a transaction's accounts before or after it; a `kept` one shows no number for none, as Agave."""
    shown: list[object] = []
    for balance in tokens:
        amount = balance.after if after else balance.before
        if amount is None:
            continue
        ui = token_amount(amount, balance.decimals)
        shown.append(
            {
                "accountIndex": balance.at,
                "mint": balance.mint,
                "owner": balance.owner,
                "programId": balance.program,
                "uiTokenAmount": ui | {"uiAmount": None} if kept and not amount else ui,
            }
        )
    return shown


def ui_loaded(loaded: tuple[Sequence[Pubkey], Sequence[Pubkey]]) -> dict[str, object]:
    """The accounts that lookup tables added."""
    return {"writable": [str(key) for key in loaded[0]], "readonly": [str(key) for key in loaded[1]]}


def ui_inner(inner: Inner, keys: Sequence[Pubkey], *, parsed: bool) -> list[object]:
    """The calls that each outer instruction made."""
    return [
        {"index": index, "instructions": [_instruction(*step, keys=keys if parsed else None) for step in steps]}
        for index, steps in enumerate(inner)
        if steps
    ]


def memo_of(record: LandedTransaction) -> str | None:
    """The memos of a transaction's own instructions, each with its length, as a history lists them."""
    message = VersionedTransaction.from_bytes(record.wire).message
    memos = [
        f"[{len(bytes(step.data))}] {bytes(step.data).decode(errors='replace')}"
        for step in message.instructions
        if str(message.account_keys[step.program_id_index]) in MEMOS
    ]
    return "; ".join(memos) or None


def ui_transaction(record: LandedTransaction, encoding: str, details: str = "full") -> dict[str, Any]:
    """A landed transaction with its metadata and its version; of `details` "accounts" no more than those."""
    tx = VersionedTransaction.from_bytes(record.wire)
    message = tx.message
    if not isinstance(message, Message | MessageV0):
        raise Refusal(UNSUPPORTED_VERSION, "Transaction version is not supported")
    keys = [*message.account_keys, *record.loaded[0], *record.loaded[1]]
    meta: dict[str, object] = {
        "err": record.error,
        "status": ui_status(record.error),
        "fee": record.fee,
        "preBalances": record.pre,
        "postBalances": record.post,
        "preTokenBalances": ui_token_balances(record.tokens, after=False),
        "postTokenBalances": ui_token_balances(record.tokens, after=True),
        "rewards": [],
    }
    signatures = [str(signature) for signature in tx.signatures]
    shown: object
    if details == "accounts":
        shown = {"signatures": signatures, "accountKeys": _account_keys(message, record)}
    else:
        parsed = encoding == "jsonParsed"
        meta |= {
            "innerInstructions": ui_inner(record.inner, keys, parsed=parsed),
            "logMessages": record.logs,
            "computeUnitsConsumed": record.units,
            "costUnits": record.cost,
        }
        if not parsed:
            meta["loadedAddresses"] = ui_loaded(record.loaded)
        if record.returned is not None:
            meta["returnData"] = ui_return_data(record.returned)
        if encoding in ("json", "jsonParsed"):
            body = _parsed_message(message, record, keys) if parsed else _message(message)
            shown = {"signatures": signatures, "message": body}
        elif encoding == "base64":
            shown = [base64.b64encode(record.wire).decode(), "base64"]
        else:
            shown = [base58(record.wire), "base58"] if encoding == "base58" else base58(record.wire)
    return {"transaction": shown, "meta": meta, "version": 0 if isinstance(message, MessageV0) else "legacy"}


def _account_keys(message: Message | MessageV0, record: LandedTransaction) -> list[object]:
    header, own = message.header, message.account_keys
    signers = header.num_required_signatures
    called = {own[step.program_id_index] for step in message.instructions}
    first_fixed = (signers - header.num_readonly_signed_accounts, len(own) - header.num_readonly_unsigned_accounts)
    shown: list[object] = []
    for at, key in enumerate(own):
        writable = at < first_fixed[at >= signers] and key not in called
        shown.append({"pubkey": str(key), "signer": at < signers, "source": "transaction", "writable": writable})
    for writable, keys in ((True, record.loaded[0]), (False, record.loaded[1])):
        shown += [{"pubkey": str(key), "signer": False, "source": "lookupTable", "writable": writable} for key in keys]
    return shown


def _lookups(message: Message | MessageV0) -> dict[str, object]:
    if not isinstance(message, MessageV0):
        return {}
    return {
        "addressTableLookups": [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(bytes(lookup.writable_indexes)),
                "readonlyIndexes": list(bytes(lookup.readonly_indexes)),
            }
            for lookup in message.address_table_lookups
        ]
    }


def _parsed_message(message: Message | MessageV0, record: LandedTransaction, keys: Sequence[Pubkey]) -> object:
    return {
        "accountKeys": _account_keys(message, record),
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            _instruction(step.program_id_index, bytes(step.accounts), bytes(step.data), 1, keys=keys)
            for step in message.instructions
        ],
        **_lookups(message),
    }


def _message(message: Message | MessageV0) -> object:
    header = message.header
    return {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            _instruction(step.program_id_index, bytes(step.accounts), bytes(step.data), 1)
            for step in message.instructions
        ],
        **_lookups(message),
    }


def _instruction(
    program: int, accounts: bytes, data: bytes, height: int | None, *, keys: Sequence[Pubkey] | None = None
) -> object:
    """An instruction, parsed where `keys` tell what its indexes mean."""
    if keys is not None:
        return parsed_instruction(keys[program], [keys[index] for index in accounts], data, height)
    return {"programIdIndex": program, "accounts": list(accounts), "data": base58(data), "stackHeight": height}


_NODE_WORDS = {
    "AlreadyProcessed": "This transaction has already been processed",
    "BlockhashNotFound": "Blockhash not found",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "SignatureFailure": "Transaction did not pass signature verification",
}


def node_words(error: object) -> str:
    """A transaction error in a real node's words, where tools look for them."""
    match error:
        case {"InstructionError": [int(index), {"Custom": int(code)}]}:
            return f"Error processing Instruction {index}: custom program error: {code:#x}"
        case str(name) if name in _NODE_WORDS:
            return _NODE_WORDS[name]
    return error_text(error)
