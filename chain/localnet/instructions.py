"""Instructions in `jsonParsed`, as a real node (Agave) shows them: one table for each program that it parses.

An instruction that is in no table, or whose data or accounts are too short for its row, is shown undecoded. Votes,
stakes and loaders are in none: nobody votes here, and programs are deployed by the network itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from chain.localnet.parameters import base58
from chain.localnet.parsed import token_amount
from chain.network.execution import TOKEN_PROGRAMS

_SYSTEM: Final = "11111111111111111111111111111111"
_ASSOCIATED: Final = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
_TABLES: Final = "AddressLookupTab1e1111111111111111111111111"
MEMOS: Final = ("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo", "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")


@dataclass(frozen=True, slots=True)
class Form:
    """An instruction: its name; its accounts, in order, `-` for one that is not shown and `?` after one that may be
    missing; its data after the tag as (name, kind); and the signer at the end, who may be a multisig.
    """

    name: str
    accounts: str
    fields: tuple[tuple[str, str], ...] = ()
    signer: str = ""


def _form(name: str, accounts: str, fields: str = "", signer: str = "") -> Form:
    pairs = tuple((part.partition(":")[0], part.partition(":")[2]) for part in fields.split())
    return Form(name, accounts, pairs, signer)


_SYSTEM_FORMS: Final = {
    0: _form("createAccount", "source newAccount", "lamports:u64 space:u64 owner:key"),
    1: _form("assign", "account", "owner:key"),
    2: _form("transfer", "source destination", "lamports:u64"),
    3: _form("createAccountWithSeed", "source newAccount", "base:key seed:text lamports:u64 space:u64 owner:key"),
    4: _form("advanceNonce", "nonceAccount recentBlockhashesSysvar nonceAuthority"),
    5: _form(
        "withdrawFromNonce",
        "nonceAccount destination recentBlockhashesSysvar rentSysvar nonceAuthority",
        "lamports:u64",
    ),
    6: _form("initializeNonce", "nonceAccount recentBlockhashesSysvar rentSysvar", "nonceAuthority:key"),
    7: _form("authorizeNonce", "nonceAccount nonceAuthority", "newAuthorized:key"),
    8: _form("allocate", "account", "space:u64"),
    9: _form("allocateWithSeed", "account", "base:key seed:text space:u64 owner:key"),
    10: _form("assignWithSeed", "account", "base:key seed:text owner:key"),
    11: _form("transferWithSeed", "source sourceBase destination", "lamports:u64 sourceSeed:text sourceOwner:key"),
    12: _form("upgradeNonce", "nonceAccount"),
}
_TABLE_FORMS: Final = {
    0: _form(
        "createLookupTable",
        "lookupTableAccount lookupTableAuthority payerAccount systemProgram",
        "recentSlot:u64 bumpSeed:u8",
    ),
    1: _form("freezeLookupTable", "lookupTableAccount lookupTableAuthority"),
    2: _form(
        "extendLookupTable", "lookupTableAccount lookupTableAuthority payerAccount? systemProgram?", "newAddresses:keys"
    ),
    3: _form("deactivateLookupTable", "lookupTableAccount lookupTableAuthority"),
    4: _form("closeLookupTable", "lookupTableAccount lookupTableAuthority recipient"),
}
_MINT: Final = "decimals:u8 mintAuthority:key freezeAuthority:key?"
_TOKEN_FORMS: Final = {
    0: _form("initializeMint", "mint rentSysvar", _MINT),
    1: _form("initializeAccount", "account mint owner rentSysvar"),
    2: _form("initializeMultisig", "multisig rentSysvar signers*", "m:u8"),
    3: _form("transfer", "source destination", "amount:amount", "authority"),
    4: _form("approve", "source delegate", "amount:amount", "owner"),
    5: _form("revoke", "source", "", "owner"),
    6: _form("setAuthority", "authorized", "authorityType:authority newAuthority:key?!", "authority"),
    7: _form("mintTo", "mint account", "amount:amount", "mintAuthority"),
    8: _form("burn", "account mint", "amount:amount", "authority"),
    9: _form("closeAccount", "account destination", "", "owner"),
    10: _form("freezeAccount", "account mint", "", "freezeAuthority"),
    11: _form("thawAccount", "account mint", "", "freezeAuthority"),
    12: _form("transferChecked", "source mint destination", "tokenAmount:tokens", "authority"),
    13: _form("approveChecked", "source mint delegate", "tokenAmount:tokens", "owner"),
    14: _form("mintToChecked", "mint account", "tokenAmount:tokens", "mintAuthority"),
    15: _form("burnChecked", "account mint", "tokenAmount:tokens", "authority"),
    16: _form("initializeAccount2", "account mint rentSysvar", "owner:key"),
    17: _form("syncNative", "account"),
    18: _form("initializeAccount3", "account mint", "owner:key"),
    19: _form("initializeMultisig2", "multisig signers*", "m:u8"),
    20: _form("initializeMint2", "mint", _MINT),
    21: _form("getAccountDataSize", "mint", "extensionTypes:extensions"),
    22: _form("initializeImmutableOwner", "account"),
    23: _form("amountToUiAmount", "mint", "amount:amount"),
}
_ASSOCIATED_FORMS: Final = {
    0: _form("create", "source account wallet mint systemProgram tokenProgram"),
    1: _form("createIdempotent", "source account wallet mint systemProgram tokenProgram"),
    2: _form("recoverNested", "nestedSource nestedMint destination nestedOwner ownerMint wallet tokenProgram"),
}
_PROGRAMS: Final = {
    _SYSTEM: ("system", 4, _SYSTEM_FORMS),
    _TABLES: ("address-lookup-table", 4, _TABLE_FORMS),
    _ASSOCIATED: ("spl-associated-token-account", 1, _ASSOCIATED_FORMS),
    **{str(program): (name, 1, _TOKEN_FORMS) for program, name in TOKEN_PROGRAMS.items()},
}
_AUTHORITIES: Final = ("mintTokens", "freezeAccount", "accountOwner", "closeAccount")
_EXTENSIONS: Final = {7: "immutableOwner"}  # the only one that the associated token program asks about


def parsed_instruction(
    program: Pubkey, accounts: Sequence[Pubkey], data: bytes, height: int | None
) -> dict[str, object]:
    """One instruction: parsed where its program's table knows it, else its accounts and its data in base 58."""
    name, where = str(program), [str(key) for key in accounts]
    shown: dict[str, object] = {"programId": name, "stackHeight": height}
    if name in MEMOS:
        try:
            return shown | {"program": "spl-memo", "parsed": data.decode()}
        except UnicodeDecodeError:
            pass
    try:
        kind, size, forms = _PROGRAMS[name]
        tag = int.from_bytes(data[:size], "little") if data or name != _ASSOCIATED else 0
        info = _info(forms[tag], where, _Reader(data[size:]))
        return shown | {"program": kind, "parsed": {"type": forms[tag].name, "info": info}}
    except (KeyError, IndexError, ValueError):
        return shown | {"accounts": where, "data": base58(data)}


def _info(form: Form, accounts: Sequence[str], data: _Reader) -> dict[str, object]:
    info: dict[str, object] = {}
    at = 0
    for name in form.accounts.split():
        if name.endswith("*"):
            info[name[:-1]], at = list(accounts[at:]), len(accounts)
        elif not name.endswith("?"):
            info[name], at = accounts[at], at + 1
        elif at < len(accounts):
            info[name[:-1]], at = accounts[at], at + 1
    for name, kind in form.fields:
        value = data.read(kind)
        if value is not None or kind.endswith("!"):
            info[name] = value
    if form.signer and len(accounts) > at + 1:
        info |= {
            f"multisig{form.signer[0].upper()}{form.signer[1:]}": accounts[at],
            "signers": list(accounts[at + 1 :]),
        }
    elif form.signer:
        info[form.signer] = accounts[at]
    if form.name == "setAuthority":
        of_mint = info["authorityType"] in _AUTHORITIES[:2]
        info["mint" if of_mint else "account"] = info.pop("authorized")
    return info


class _Reader:
    """An instruction's data, read by kind; ValueError where it ends early."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def _take(self, size: int) -> bytes:
        if size > len(self._rest):
            raise ValueError("the data ends early")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _key(self) -> str:
        return str(Pubkey.from_bytes(self._take(32)))

    def read(self, kind: str) -> object:
        """The next value; None for an option that is not there."""
        match kind:
            case "u8" | "u64":
                return self._number(1 if kind == "u8" else 8)
            case "amount":
                return str(self._number(8))
            case "tokens":
                amount = self._number(8)
                return token_amount(amount, self._number(1))
            case "key":
                return self._key()
            case "key?" | "key?!":
                return self._key() if self._number(1) else None
            case "text":
                return self._take(self._number(8)).decode()
            case "keys":
                return [self._key() for _ in range(self._number(8))]
            case "authority":
                return _AUTHORITIES[self._number(1)]
            case "extensions":
                numbers = [self._number(2) for _ in range(len(self._rest) // 2)]
                return [_EXTENSIONS[number] for number in numbers] or None
        raise KeyError(kind)
