"""Accounts in `jsonParsed`, as a real node (Agave) shows them: tokens, nonces, lookup tables, sysvars, programs."""

from __future__ import annotations

import base64
from collections.abc import Callable

from solders import sysvar
from solders.address_lookup_table_account import ID as LOOKUP_TABLES
from solders.address_lookup_table_account import AddressLookupTable
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.pubkey import Pubkey

from chain.network.base import Account
from chain.network.execution import TOKEN_PROGRAMS, UPGRADEABLE_LOADER, mint_of, nonce_value, token_account

_SYSVARS = Pubkey.from_string("Sysvar1111111111111111111111111111111111111")
Decimals = Callable[[Pubkey], int]


def parsed_account(key: Pubkey | None, account: Account, decimals: Decimals) -> object:
    """An account's data, parsed; None where no parser knows it. `decimals` tells those of a mint."""
    program, kind, info = "", "", None  # type: str, str, object
    try:
        if account.owner in TOKEN_PROGRAMS:
            program, (kind, info) = TOKEN_PROGRAMS[account.owner], _token(account, decimals)
        elif nonce_value(account) is not None:
            program, kind, info = "nonce", "initialized", _nonce(account.data)
        elif account.owner == LOOKUP_TABLES:
            program, kind, info = "address-lookup-table", "lookupTable", _table(account.data)
        elif account.owner == UPGRADEABLE_LOADER:
            program, (kind, info) = "bpf-upgradeable-loader", _program(account.data)
        elif account.owner == _SYSVARS and key is not None:
            program, (kind, info) = "sysvar", _sysvar(key, account.data)
    except ValueError:
        return None
    if info is None:
        return None
    return {"program": program, "parsed": {"info": info, "type": kind}, "space": len(account.data)}


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


def _token(account: Account, decimals: Decimals) -> tuple[str, object]:
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
        if token.is_native is not None:
            info["rentExemptReserve"] = token_amount(token.is_native, decimals(token.mint))
        return "account", info
    if mint is not None:
        return "mint", {
            "decimals": mint.decimals,
            "freezeAuthority": str(mint.freeze_authority) if mint.freeze_authority else None,
            "isInitialized": True,
            "mintAuthority": str(mint.mint_authority) if mint.mint_authority else None,
            "supply": str(mint.supply),
        }
    return "", None


def _nonce(data: bytes) -> object:
    return {
        "authority": str(Pubkey.from_bytes(data[8:40])),
        "blockhash": str(Hash.from_bytes(data[40:72])),
        "feeCalculator": {"lamportsPerSignature": str(int.from_bytes(data[72:80], "little"))},
    }


def _table(data: bytes) -> object:
    table = AddressLookupTable.deserialize(data)
    info: dict[str, object] = {
        "addresses": [str(key) for key in table.addresses],
        "deactivationSlot": str(table.meta.deactivation_slot),
        "lastExtendedSlot": str(table.meta.last_extended_slot),
        "lastExtendedSlotStartIndex": table.meta.last_extended_slot_start_index,
    }
    if table.meta.authority is not None:
        info["authority"] = str(table.meta.authority)
    return info


def _program(data: bytes) -> tuple[str, object]:
    kind = int.from_bytes(data[:4], "little")
    if kind == 2 and len(data) >= 36:
        return "program", {"programData": str(Pubkey.from_bytes(data[4:36]))}
    if kind == 3 and len(data) >= 45:
        return "programData", {
            "authority": str(Pubkey.from_bytes(data[13:45])) if data[12] else None,
            "data": [base64.b64encode(data[45:]).decode(), "base64"],
            "slot": int.from_bytes(data[4:12], "little"),
        }
    return "", None


def _sysvar(key: Pubkey, data: bytes) -> tuple[str, object]:
    if key == sysvar.CLOCK:
        clock = Clock.from_bytes(data)
        return "clock", {
            "epoch": clock.epoch,
            "epochStartTimestamp": clock.epoch_start_timestamp,
            "leaderScheduleEpoch": clock.leader_schedule_epoch,
            "slot": clock.slot,
            "unixTimestamp": clock.unix_timestamp,
        }
    if key == sysvar.RENT:
        return "rent", {"lamportsPerByte": str(int.from_bytes(data[:8], "little"))}
    if key == sysvar.EPOCH_SCHEDULE:
        schedule = EpochSchedule.from_bytes(data)
        return "epochSchedule", epoch_schedule(schedule)
    if key == sysvar.SLOT_HASHES:
        entries = range(8, 8 + 40 * int.from_bytes(data[:8], "little"), 40)
        return "slotHashes", [
            {
                "slot": int.from_bytes(data[at : at + 8], "little"),
                "hash": str(Hash.from_bytes(data[at + 8 : at + 40])),
            }
            for at in entries
        ]
    if key == sysvar.RECENT_BLOCKHASHES:
        entries = range(8, 8 + 40 * int.from_bytes(data[:8], "little"), 40)
        return "recentBlockhashes", [
            {
                "blockhash": str(Hash.from_bytes(data[at : at + 32])),
                "feeCalculator": {"lamportsPerSignature": str(int.from_bytes(data[at + 32 : at + 40], "little"))},
            }
            for at in entries
        ]
    return "", None


def epoch_schedule(schedule: EpochSchedule) -> dict[str, object]:
    """The epochs' lengths."""
    return {
        "firstNormalEpoch": schedule.first_normal_epoch,
        "firstNormalSlot": schedule.first_normal_slot,
        "leaderScheduleSlotOffset": schedule.leader_schedule_slot_offset,
        "slotsPerEpoch": schedule.slots_per_epoch,
        "warmup": schedule.warmup,
    }
