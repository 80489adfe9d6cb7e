"""Accounts, tokens, transactions and errors as a real node (Agave) shows them: values that json.dumps takes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.token.state import Mint, TokenAccount
from solders.transaction import VersionedTransaction

from chain.localnet.parameters import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    UNSUPPORTED_VERSION,
    Refusal,
    base58,
    choice,
    number,
)
from chain.network.base import Account, error_text
from chain.network.ledger import LandedTransaction

_TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
_TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
TOKEN_PROGRAMS = {_TOKEN: "spl-token", _TOKEN_2022: "spl-token-2022"}
_TOKEN_SIZE, _MINT_SIZE = 165, 82
_ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")


def ui_account(account: Account, config: Mapping[str, object], decimals: Callable[[Pubkey], int]) -> object:
    """An account in the encoding and slice asked for; base64 stands in for zstd and for unknown parsers."""
    encoding = choice(config, "encoding", "binary", _ENCODINGS)
    parsed = _parsed_token(account, decimals) if encoding == "jsonParsed" else None
    data = account.data
    if config.get("dataSlice") is not None and parsed is None:
        piece = config["dataSlice"]
        if not isinstance(piece, dict):
            raise Refusal(INVALID_PARAMS, "Invalid params: dataSlice must be an object")
        offset = number(piece, "offset")
        data = data[offset : offset + number(piece, "length")]
    shown: object
    if parsed is not None:
        shown = parsed
    elif encoding in ("binary", "base58"):
        if len(data) > 128:
            raise Refusal(
                INVALID_REQUEST,
                "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.",
            )
        shown = base58(data) if encoding == "binary" else [base58(data), "base58"]
    else:
        shown = [base64.b64encode(data).decode(), "base64"]
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "data": shown,
        "executable": account.executable,
        "rentEpoch": account.rent_epoch,
        "space": len(account.data),
    }


def token_amount(amount: int, decimals: int) -> dict[str, object]:
    """A token amount as a node shows it."""
    digits = f"{amount:0{decimals + 1}d}"
    exact = f"{digits[:-decimals]}.{digits[-decimals:]}".rstrip("0").rstrip(".") if decimals else digits
    return {
        "amount": str(amount),
        "decimals": decimals,
        "uiAmount": amount / 10**decimals,
        "uiAmountString": exact,
    }


def token_account(account: Account | None) -> TokenAccount | None:
    """The token account of either token program in `account`; None if it holds none."""
    if account is None or account.owner not in TOKEN_PROGRAMS or len(account.data) < _TOKEN_SIZE:
        return None
    # A Token-2022 account or mint with extensions says which it is after the 165 bytes they share.
    if len(account.data) > _TOKEN_SIZE and account.data[_TOKEN_SIZE] != 2:
        return None
    try:
        token = TokenAccount.from_bytes(account.data[:_TOKEN_SIZE])
    except ValueError:
        return None
    return token if account.data[108] else None


def mint_of(account: Account | None) -> Mint | None:
    """The mint of either token program in `account`; None if it holds none."""
    if account is None or account.owner not in TOKEN_PROGRAMS:
        return None
    size = len(account.data)
    if size != _MINT_SIZE and not (size > _TOKEN_SIZE and account.data[_TOKEN_SIZE] == 1):
        return None
    try:
        mint = Mint.from_bytes(account.data[:_MINT_SIZE])
    except ValueError:
        return None
    return mint if mint.is_initialized else None


def _parsed_token(account: Account, decimals: Callable[[Pubkey], int]) -> object:
    token, mint = token_account(account), mint_of(account)
    info: dict[str, object]
    if token is not None:
        info = {
            "isNative": token.is_native is not None,
            "mint": str(token.mint),
            "owner": str(token.owner),
            "state": ("uninitialized", "initialized", "frozen")[account.data[108]],
            "tokenAmount": token_amount(token.amount, decimals(token.mint)),
        }
        if token.delegate is not None:
            info["delegate"] = str(token.delegate)
            info["delegatedAmount"] = token_amount(token.delegated_amount, decimals(token.mint))
        if token.close_authority is not None:
            info["closeAuthority"] = str(token.close_authority)
    elif mint is not None:
        info = {
            "decimals": mint.decimals,
            "freezeAuthority": str(mint.freeze_authority) if mint.freeze_authority else None,
            "isInitialized": True,
            "mintAuthority": str(mint.mint_authority) if mint.mint_authority else None,
            "supply": str(mint.supply),
        }
    else:
        return None
    return {
        "program": TOKEN_PROGRAMS[account.owner],
        "parsed": {"info": info, "type": "account" if token is not None else "mint"},
        "space": len(account.data),
    }


def ui_status(error: object) -> object:
    """A transaction's outcome in the older form that nodes still show."""
    return {"Ok": None} if error is None else {"Err": error}


def ui_return_data(returned: tuple[str, bytes] | None) -> object:
    """What a program returned: the program's address and the bytes."""
    if returned is None:
        return None
    return {"programId": returned[0], "data": [base64.b64encode(returned[1]).decode(), "base64"]}


def ui_transaction(record: LandedTransaction, encoding: str, versions: bool) -> dict[str, object]:
    """A landed transaction with its metadata; its version only where the client asked for versions."""
    tx = VersionedTransaction.from_bytes(record.wire)
    message = tx.message
    if not isinstance(message, Message | MessageV0):
        raise Refusal(UNSUPPORTED_VERSION, "Transaction version is not supported")
    shown: object
    if encoding == "json":
        shown = {"signatures": [str(signature) for signature in tx.signatures], "message": _message(message)}
    elif encoding == "base64":
        shown = [base64.b64encode(record.wire).decode(), "base64"]
    else:
        shown = [base58(record.wire), "base58"] if encoding == "base58" else base58(record.wire)
    meta = {
        "err": record.error,
        "status": ui_status(record.error),
        "fee": record.fee,
        "preBalances": record.pre,
        "postBalances": record.post,
        "innerInstructions": [
            {"index": index, "instructions": [_instruction(*step) for step in steps]}
            for index, steps in enumerate(record.inner)
            if steps
        ],
        "logMessages": record.logs,
        "preTokenBalances": None,
        "postTokenBalances": None,
        "rewards": [],
        "loadedAddresses": {"writable": [], "readonly": []},
        "computeUnitsConsumed": record.units,
    }
    if record.returned is not None:
        meta["returnData"] = ui_return_data(record.returned)
    whole: dict[str, object] = {"transaction": shown, "meta": meta}
    if versions:
        whole["version"] = 0 if isinstance(message, MessageV0) else "legacy"
    return whole


def _message(message: Message | MessageV0) -> object:
    header = message.header
    shown: dict[str, object] = {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [_instruction(i.program_id_index, i.accounts, i.data, None) for i in message.instructions],
    }
    if isinstance(message, MessageV0):
        shown["addressTableLookups"] = [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(lookup.writable_indexes),
                "readonlyIndexes": list(lookup.readonly_indexes),
            }
            for lookup in message.address_table_lookups
        ]
    return shown


def _instruction(program: int, accounts: bytes, data: bytes, height: int | None) -> object:
    return {
        "programIdIndex": program,
        "accounts": list(accounts),
        "data": base58(data),
        "stackHeight": height,
    }


_NODE_WORDS = {
    "AlreadyProcessed": "This transaction has already been processed",
    "BlockhashNotFound": "Blockhash not found",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "InsufficientFundsForFee": "Insufficient funds for fee",
}


def node_words(error: object) -> str:
    """A transaction error in a real node's words, where tools look for them."""
    match error:
        case {"InstructionError": [int(index), {"Custom": int(code)}]}:
            return f"Error processing Instruction {index}: custom program error: {code:#x}"
        case str(name) if name in _NODE_WORDS:
            return _NODE_WORDS[name]
    return error_text(error)
