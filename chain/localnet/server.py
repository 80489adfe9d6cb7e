"""The embedded network as a Solana JSON-RPC node on this machine, so that any Solana tool works against it.

Rules: answers have the shapes of a real node (Agave), errors its codes; the state is always final, so every
commitment gives the same. Only loopback addresses are served, and only requests that name one in `Host`
(another name there is a web page that rebound its DNS) and carry JSON (a page cannot send that unasked).
Bodies, batches, answers' ranges and connections are bounded. Subscriptions are on the next port
(`chain.localnet.subscriptions`). What a real node knows and this one does not
(votes, stakes, leaders, token balances in transaction metadata) is the standard "method not found" or null.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from solders.hash import Hash, ParseHashError
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.token.state import Mint, TokenAccount
from solders.transaction import VersionedTransaction

from chain.errors import ChainError, TransactionFailed
from chain.network.base import FEE_PER_SIGNATURE, MAX_TRANSACTION, Account, TransactionRejected, error_text
from chain.network.embedded import SLOTS_PER_EPOCH, EmbeddedNetwork, Outcome, Record

VERSION = "3.0.0"  # the Agave release whose shapes these are
MAX_BODY = 256 << 10  # bytes
MAX_BATCH = 100
MAX_CONNECTIONS = 128
IDLE_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
_TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
_TOKEN_PROGRAMS = {_TOKEN: "spl-token", _TOKEN_2022: "spl-token-2022"}
_TOKEN_SIZE, _MINT_SIZE = 165, 82
_MAX_ACCOUNTS, _MAX_STATUSES, _MAX_SIGNATURES, _MAX_BLOCKS = 100, 256, 1_000, 500_000
_MAX_ACCOUNT_SIZE = 10 << 20  # bytes
_MAX_MEMCMP = 128  # bytes
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}

_PARSE, _REQUEST, _METHOD, _PARAMS, _INTERNAL = -32700, -32600, -32601, -32602, -32603
_PREFLIGHT, _SIGNATURE, _NO_BLOCK, _VERSION, _CONTEXT = -32002, -32003, -32004, -32015, -32016

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def base58(raw: bytes) -> str:
    """Bytes in Bitcoin's base 58."""
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def from_base58(text: str) -> bytes:
    """The bytes of `base58`. Raises ValueError; the caller bounds the length, for the time is quadratic."""
    number = 0
    for character in text:
        if character not in _DIGITS:
            raise ValueError(f"{character!r} is not a base 58 digit")
        number = number * 58 + _DIGITS[character]
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


class Params:
    """A request's parameters, read one by one; whatever is not as expected is "Invalid params"."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, list):
            raise Refusal(_PARAMS, "Invalid params: a list was expected")
        self._values = values

    def get(self, index: int) -> object:
        """The parameter, or None."""
        return self._values[index] if index < len(self._values) else None

    def text(self, index: int) -> str:
        """A string."""
        value = self.get(index)
        if not isinstance(value, str):
            raise Refusal(_PARAMS, f"Invalid params: a string was expected at {index}")
        return value

    def number(self, index: int, limit: int = (1 << 64) - 1) -> int:
        """An integer from 0 to `limit`."""
        return _number({"": self.get(index)}, "", limit=limit)

    def key(self, index: int) -> Pubkey:
        """An address."""
        return _key(self.get(index))

    def signature(self, index: int) -> Signature:
        """A signature."""
        return _signature(self.get(index))

    def config(self, index: int) -> dict[str, Any]:
        """An optional object."""
        value = self.get(index)
        if value is not None and not isinstance(value, dict):
            raise Refusal(_PARAMS, f"Invalid params: an object was expected at {index}")
        return value or {}


def _number(config: Mapping[str, object], name: str, default: int | None = None, limit: int = 1 << 64) -> int:
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise Refusal(_PARAMS, f"Invalid params: {name or 'a number'} must be an integer from 0 to {limit}")
    return value


def _flag(config: Mapping[str, object], name: str) -> bool:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(_PARAMS, f"Invalid params: {name} must be true or false")
    return bool(value)


def _choice(config: Mapping[str, object], name: str, default: str, choices: tuple[str, ...]) -> str:
    value = config.get(name)
    if value is None:
        return default
    if value not in choices:
        raise Refusal(_PARAMS, f"Invalid params: {name} must be one of {', '.join(choices)}")
    return str(value)


def _key(value: object) -> Pubkey:
    try:
        if isinstance(value, str) and len(value) <= 44:
            return Pubkey.from_string(value)
    except ValueError:
        pass
    raise Refusal(_PARAMS, "Invalid param: Invalid")


def _signature(value: object) -> Signature:
    try:
        if isinstance(value, str) and len(value) <= 88:
            return Signature.from_string(value)
    except ValueError:
        pass
    raise Refusal(_PARAMS, "Invalid param: Invalid")


def _bytes(text: object, encoding: str, limit: int) -> bytes:
    if not isinstance(text, str) or len(text) > 2 * limit:
        raise Refusal(_PARAMS, f"Invalid params: at most {limit} bytes in {encoding} were expected")
    try:
        raw = from_base58(text) if encoding == "base58" else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refusal(_PARAMS, f"Invalid params: invalid {encoding} encoding: {error}") from None
    if len(raw) > limit:
        raise Refusal(_PARAMS, f"Invalid params: {encoding} of {len(raw)} bytes exceeds {limit}")
    return raw


def _octets(value: object) -> bytes:
    try:
        if isinstance(value, list) and len(value) <= _MAX_MEMCMP:
            return bytes(value)
    except (TypeError, ValueError):
        pass
    raise Refusal(_PARAMS, f"Invalid params: at most {_MAX_MEMCMP} bytes were expected")


def _transaction(text: object, config: Mapping[str, object]) -> VersionedTransaction:
    encoding = _choice(config, "encoding", "base58", ("base58", "base64"))
    raw = _bytes(text, encoding, MAX_TRANSACTION)
    try:
        tx = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise Refusal(_PARAMS, f"failed to deserialize VersionedTransaction: {error}") from None
    if bytes(tx) != raw or not isinstance(tx.message, Message | MessageV0):
        raise Refusal(_PARAMS, "failed to deserialize VersionedTransaction: not its canonical form")
    return tx


# Shapes. Each function gives a value that json.dumps takes.

_ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")


def ui_account(account: Account, config: Mapping[str, object], decimals: Callable[[Pubkey], int]) -> object:
    """An account in the encoding and slice asked for; base64 stands in for zstd and for unknown parsers."""
    encoding = _choice(config, "encoding", "binary", _ENCODINGS)
    parsed = _parsed_token(account, decimals) if encoding == "jsonParsed" else None
    data = account.data
    if config.get("dataSlice") is not None and parsed is None:
        piece = config["dataSlice"]
        if not isinstance(piece, dict):
            raise Refusal(_PARAMS, "Invalid params: dataSlice must be an object")
        offset = _number(piece, "offset")
        data = data[offset : offset + _number(piece, "length")]
    shown: object
    if parsed is not None:
        shown = parsed
    elif encoding in ("binary", "base58"):
        if len(data) > 128:
            raise Refusal(
                _REQUEST,
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


def _token_account(account: Account | None) -> TokenAccount | None:
    if account is None or account.owner not in _TOKEN_PROGRAMS or len(account.data) < _TOKEN_SIZE:
        return None
    # A Token-2022 account or mint with extensions says which it is after the 165 bytes they share.
    if len(account.data) > _TOKEN_SIZE and account.data[_TOKEN_SIZE] != 2:
        return None
    try:
        token = TokenAccount.from_bytes(account.data[:_TOKEN_SIZE])
    except ValueError:
        return None
    return token if account.data[108] else None


def _mint(account: Account | None) -> Mint | None:
    if account is None or account.owner not in _TOKEN_PROGRAMS:
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
    token, mint = _token_account(account), _mint(account)
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
        "program": _TOKEN_PROGRAMS[account.owner],
        "parsed": {"info": info, "type": "account" if token is not None else "mint"},
        "space": len(account.data),
    }


def _status(error: object) -> object:
    return {"Ok": None} if error is None else {"Err": error}


def _return_data(returned: tuple[str, bytes] | None) -> object:
    if returned is None:
        return None
    return {"programId": returned[0], "data": [base64.b64encode(returned[1]).decode(), "base64"]}


def ui_transaction(record: Record, encoding: str, versions: bool) -> dict[str, object]:
    """A landed transaction with its metadata; its version only where the client asked for versions."""
    tx = VersionedTransaction.from_bytes(record.wire)
    message = tx.message
    if not isinstance(message, Message | MessageV0):
        raise Refusal(_VERSION, "Transaction version is not supported")
    shown: object
    if encoding == "json":
        shown = {"signatures": [str(signature) for signature in tx.signatures], "message": _message(message)}
    elif encoding == "base64":
        shown = [base64.b64encode(record.wire).decode(), "base64"]
    else:
        shown = [base58(record.wire), "base58"] if encoding == "base58" else base58(record.wire)
    meta = {
        "err": record.error,
        "status": _status(record.error),
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
        meta["returnData"] = _return_data(record.returned)
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


def _node_words(error: object) -> str:
    """A transaction error in a real node's words, where tools look for them."""
    match error:
        case {"InstructionError": [int(index), {"Custom": int(code)}]}:
            return f"Error processing Instruction {index}: custom program error: {code:#x}"
        case str(name) if name in _NODE_WORDS:
            return _NODE_WORDS[name]
    return error_text(error)


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
                raise Refusal(_REQUEST, "Invalid request")
            if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
                identity = None
                raise Refusal(_REQUEST, "Invalid request")
            name, params = request.get("method"), request.get("params")
            if not isinstance(name, str):
                raise Refusal(_REQUEST, "Invalid request")
            if name not in self.table:
                raise Refusal(_METHOD, "Method not found")
            answer["result"] = self.table[name](Params([] if params is None else params))
            if "id" not in request:
                return None
        except Refusal as refusal:
            answer["error"] = {"code": refusal.code, "message": str(refusal)}
            if refusal.data is not None:
                answer["error"] |= {"data": refusal.data}  # type: ignore[operator]
        except ChainError as error:
            answer["error"] = {"code": _INTERNAL, "message": error.message}
        except Exception:
            _log.exception("a request to the local node failed")
            answer["error"] = {"code": _INTERNAL, "message": "Internal error"}
        return answer | {"id": identity}

    def _slot(self, config: Mapping[str, object]) -> int:
        slot = self._network.clock().slot
        if slot < _number(config, "minContextSlot", 0):
            raise Refusal(_CONTEXT, "Minimum context slot has not been reached", {"contextSlot": slot})
        return slot

    def _context(self, config: Mapping[str, object], value: object) -> object:
        return {"context": {"slot": self._slot(config), "apiVersion": VERSION}, "value": value}

    def _decimals(self, mint: Pubkey) -> int:
        found = _mint(self._network.account(mint))
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
            raise Refusal(_PARAMS, "Invalid param: Invalid") from None
        return self._context(params.config(1), self._network.blockhash_valid(blockhash))

    def _fee(self, params: Params) -> object:
        try:
            message = from_bytes_versioned(_bytes(params.get(0), "base64", MAX_TRANSACTION))
        except ValueError as error:
            raise Refusal(_PARAMS, f"failed to deserialize VersionedMessage: {error}") from None
        if not isinstance(message, Message | MessageV0):
            raise Refusal(_PARAMS, "Invalid params: this message version is not supported")
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
            raise Refusal(_PARAMS, f"Too many inputs provided; max {_MAX_ACCOUNTS}")
        found = self._network.accounts([_key(key) for key in keys])
        return self._context(config, [self._ui_account(account, config) for account in found])

    def _program_accounts(self, params: Params) -> object:
        config = params.config(1)
        filters = config.get("filters") or []
        if not isinstance(filters, list) or len(filters) > 4:
            raise Refusal(_PARAMS, "Too many filters provided; max 4")
        size: int | None = None
        memcmp = []
        for item in filters:
            match item:
                case {"dataSize": wanted}:
                    # No account has two sizes.
                    size = _number({"dataSize": wanted}, "dataSize") if size in (None, wanted) else -1
                case {"memcmp": {"offset": _, "bytes": wanted} as compare}:
                    encoding = _choice(compare, "encoding", "base58", ("base58", "base64", "bytes"))
                    raw = _octets(wanted) if encoding == "bytes" else _bytes(wanted, encoding, _MAX_MEMCMP)
                    memcmp.append((_number(compare, "offset"), raw))
                case "tokenAccountState" | {"tokenAccountState": _}:
                    memcmp.append((108, b"\1"))
                case _:
                    raise Refusal(_PARAMS, "Invalid params: a filter is dataSize or memcmp")
        found = self._network.program_accounts(params.key(0), size=size, memcmp=memcmp)
        shown = self._keyed(found, config)
        return self._context(config, shown) if _flag(config, "withContext") else shown

    def _token_balance(self, params: Params) -> object:
        token = _token_account(self._network.account(params.key(0)))
        if token is None:
            raise Refusal(_PARAMS, "Invalid param: not a Token account")
        return self._context(params.config(1), token_amount(token.amount, self._decimals(token.mint)))

    def _token_supply(self, params: Params) -> object:
        mint = _mint(self._network.account(params.key(0)))
        if mint is None:
            raise Refusal(_PARAMS, "Invalid param: not a Token mint")
        return self._context(params.config(1), token_amount(mint.supply, mint.decimals))

    def _token_accounts(self, params: Params) -> object:
        owner, config = params.key(0), params.config(2)
        memcmp = [(32, bytes(owner))]
        match params.get(1):
            case {"mint": wanted}:
                mint = _key(wanted)
                memcmp.append((0, bytes(mint)))
                account = self._network.account(mint)
                if account is None or _mint(account) is None:
                    raise Refusal(_PARAMS, "Invalid param: could not find mint")
                program = account.owner
            case {"programId": wanted}:
                program = _key(wanted)
                if program not in _TOKEN_PROGRAMS:
                    raise Refusal(_PARAMS, "Invalid param: unrecognized Token program id")
            case _:
                raise Refusal(_PARAMS, "Invalid params: an object with mint or programId was expected")
        found = self._network.program_accounts(program, memcmp=memcmp)
        tokens = [(key, account) for key, account in found if _token_account(account) is not None]
        return self._context(config, self._keyed(tokens, config))

    def _airdrop(self, params: Params) -> object:
        try:
            return str(self._network.airdrop(params.key(0), params.number(1)))
        except TransactionFailed as error:
            raise Refusal(_PARAMS, error.message) from None

    def _send(self, params: Params) -> object:
        config = params.config(1)
        tx = _transaction(params.get(0), config)
        skip = _flag(config, "skipPreflight")
        try:
            return str(self._network.submit(tx, preflight=not skip))
        except TransactionRejected as rejected:
            if skip:  # a node forwards it and only its status tells
                return str(tx.signatures[0])
            if rejected.error == "SignatureFailure":
                raise Refusal(_SIGNATURE, "Transaction signature verification failure") from None
            raise Refusal(
                _PREFLIGHT,
                f"Transaction simulation failed: {_node_words(rejected.error)}",
                self._simulated(Outcome(rejected.error, rejected.logs, rejected.units), {}),
            ) from None

    def _simulate(self, params: Params) -> object:
        config = params.config(1)
        tx = _transaction(params.get(0), config)
        verify, replace = _flag(config, "sigVerify"), _flag(config, "replaceRecentBlockhash")
        if verify and replace:
            raise Refusal(_PARAMS, "sigVerify may not be used with replaceRecentBlockhash")
        wanted = config.get("accounts") or {"addresses": []}
        addresses = wanted.get("addresses") if isinstance(wanted, dict) else None
        if not isinstance(addresses, list) or len(addresses) > _MAX_ACCOUNTS:
            raise Refusal(_PARAMS, f"Invalid params: accounts must list at most {_MAX_ACCOUNTS} addresses")
        watch = [_key(address) for address in addresses]
        outcome = self._network.run(tx, watch=watch, signatures=verify, fresh=not replace)
        if outcome.error == "SignatureFailure":
            raise Refusal(_SIGNATURE, "Transaction signature verification failure")
        value = self._simulated(outcome, wanted | {"encoding": wanted.get("encoding") or "base64"}, watch)
        if replace:
            blockhash = self._network.latest_blockhash()
            value["replacementBlockhash"] = {
                "blockhash": str(blockhash.hash),
                "lastValidBlockHeight": blockhash.last_valid_block_height,
            }
        return self._context(config, value)

    def _simulated(
        self, outcome: Outcome, config: Mapping[str, object], watch: list[Pubkey] | None = None
    ) -> dict[str, object]:
        accounts = [self._ui_account(outcome.accounts.get(key), config) for key in watch or ()]
        return {
            "err": outcome.error,
            "logs": outcome.logs,
            "accounts": accounts if watch else None,
            "unitsConsumed": outcome.units,
            "loadedAccountsDataSize": None,
            "returnData": _return_data(outcome.returned),
            "innerInstructions": None,
            "replacementBlockhash": None,
        }

    def _statuses(self, params: Params) -> object:
        signatures = params.get(0)
        if not isinstance(signatures, list) or len(signatures) > _MAX_STATUSES:
            raise Refusal(_PARAMS, f"Too many inputs provided; max {_MAX_STATUSES}")
        records = [self._network.record(_signature(signature)) for signature in signatures]
        value = [
            record
            and {
                "slot": record.slot,
                "confirmations": None,
                "status": _status(record.error),
                "err": record.error,
                "confirmationStatus": "finalized",
            }
            for record in records
        ]
        return self._context({}, value)

    def _signatures(self, params: Params) -> object:
        config = params.config(1)
        before, until = config.get("before"), config.get("until")
        limit = _number(config, "limit", _MAX_SIGNATURES, limit=_MAX_SIGNATURES)
        if not limit:
            raise Refusal(_PARAMS, f"Invalid limit; max {_MAX_SIGNATURES}")
        found = self._network.history(
            params.key(0),
            limit=limit,
            before=None if before is None else _signature(before),
            until=None if until is None else _signature(until),
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

    def _encoded(self, record: Record, config: Mapping[str, object]) -> dict[str, object]:
        encoding = _choice(config, "encoding", "json", ("json", "base64", "base58", "binary"))
        versions = config.get("maxSupportedTransactionVersion") is not None
        shown = ui_transaction(record, encoding, True)
        if not versions and shown.pop("version") == 0:
            raise Refusal(
                _VERSION,
                "Transaction version (0) is not supported by the requesting client. Please try the request"
                ' again with the following configuration parameter: "maxSupportedTransactionVersion": 0',
                0,
            )
        return shown

    def _block(self, params: Params) -> object:
        slot, encoded = params.number(0), params.get(1)
        config = {"encoding": encoded} if isinstance(encoded, str) else params.config(1)
        details = _choice(config, "transactionDetails", "full", ("full", "signatures", "none"))
        block, parent = self._network.block(slot), self._network.block(max(0, slot - 1))
        if block is None or parent is None:
            raise Refusal(_NO_BLOCK, f"Block not available for slot {slot}")
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
            raise Refusal(_PARAMS, f"Slot range too large; max {_MAX_BLOCKS}")
        return list(range(first, last + 1))

    def _block_time(self, params: Params) -> object:
        block = self._network.block(params.number(0))
        if block is None:
            raise Refusal(_NO_BLOCK, f"Block not available for slot {params.number(0)}")
        return block.ms // 1000


class Server:
    """A node on one port, listening from the moment it is made. `port` is the one it got.

    `run` serves until `close` (or Ctrl-C) in this thread, `start` in one of its own. The network stays open.
    """

    def __init__(self, network: EmbeddedNetwork, host: str, port: int) -> None:
        if host not in _LOOPBACK:
            raise ChainError(
                f"The local node serves this machine only, not {host}.", f"Use one of {', '.join(_LOOPBACK)}."
            )
        from chain.localnet.subscriptions import Subscriptions

        # Any free port will do where none was asked for, but the next one must be free too.
        for tries_left in reversed(range(20 if port == 0 else 1)):
            try:
                self._http = _Http((host, port), _handler(Methods(network)))
            except (OSError, OverflowError) as error:
                raise _unusable(host, port, error) from None
            next_port = int(self._http.server_address[1]) + 1
            try:
                self._subscriptions = Subscriptions(network, host, next_port)
                break
            except (OSError, OverflowError) as error:
                self._http.server_close()
                if not tries_left:
                    raise _unusable(host, next_port, error) from None
        self.port = int(self._http.server_address[1])
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve until closed."""
        self._subscriptions.start()
        self._http.serve_forever(poll_interval=0.1)

    def start(self) -> Server:
        """Serve in the background; gives itself, for `with serve(...).start() as node`."""
        self._thread = threading.Thread(target=self.run, name="solana-rpc", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening."""
        if self._thread is not None:
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self._subscriptions.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unusable(host: str, port: int, error: Exception) -> ChainError:
    in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    reason = "is in use" if in_use else f"cannot be used: {error}"
    return ChainError(f"Port {port} on {host} {reason}.", "Stop what uses it, or choose another with --port.")


def serve(network: EmbeddedNetwork, host: str = "127.0.0.1", port: int = 8899) -> Server:
    """Listen on `host`:`port` (0: any free one). Raises ChainError where that cannot be had."""
    return Server(network, host, port)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # The base class asks DNS for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(timeout=1):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a connection to the local node broke", exc_info=True)


def _handler(methods: Methods) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE_SECONDS
        wbufsize = -1  # one packet per answer: headers and body apart wait for each other's acknowledgement
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self._welcome():
                found = self.path == "/health"
                self._reply(200 if found else 404, b"ok" if found else b"not found", "text/plain")

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not self._welcome():
                return
            if self.path not in ("/", ""):
                self._end(404, "not found")
            elif self.headers.get_content_type() != "application/json":
                self._end(415, "Content-Type must be application/json")
            elif not length.isdecimal() or "Transfer-Encoding" in self.headers:
                self._end(411, "Content-Length is needed")
            elif len(length) > 9 or int(length) > MAX_BODY:
                self._end(413, f"at most {MAX_BODY} bytes")
            else:
                body = self.rfile.read(int(length))
                if len(body) == int(length):
                    self._reply(200, _respond(methods, body), "application/json")

        def _welcome(self) -> bool:
            host = self.headers.get("Host", "")
            name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            if name.lower() not in _LOOPBACK:
                self._end(403, "this node serves its own machine, under a loopback name")
                return False
            return True

        def _end(self, status: int, text: str) -> None:
            self.close_connection = True  # the body was not read
            self._reply(status, text.encode(), "text/plain")

        def _reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            _log.debug(format, *args)

    return Handler


def _respond(methods: Methods, body: bytes) -> bytes:
    """The answer to one body: a request or a batch."""
    answer: object
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        answer = {"jsonrpc": "2.0", "error": {"code": _PARSE, "message": "Parse error"}, "id": None}
    else:
        if isinstance(request, list) and 0 < len(request) <= MAX_BATCH:
            answers = [methods.answer(one) for one in request]
            answer = [one for one in answers if one is not None] or None
        else:
            answer = methods.answer(request)
    return b"" if answer is None else json.dumps(answer, separators=(",", ":")).encode()
