"""What the differential test asks a node, and what of the answers must be the same on any.

A request is a method with its parameters, in which `$name` stands for what `scenario.play` made. Two answers are the
same where their `canonical` forms are: keys, types, error codes and messages, and every value that does not depend
on when and where it was made. Of the methods in CLUSTER, which tell of the cluster itself, only keys and types count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
SYSTEM = "11111111111111111111111111111111"
TABLES = "AddressLookupTab1e1111111111111111111111111"
NOBODY = "5nobodyNobodyNobodyNobodyNobodyNobodyNobody"
NOWHERE = "1" * 64  # a signature that no transaction has
FAR = 1 << 50  # a slot that is never reached
V0 = {"maxSupportedTransactionVersion": 0}
B64 = {"encoding": "base64"}
PARSED = {"encoding": "jsonParsed"}

Names = Mapping[str, str | int]

REQUESTS: Final[list[tuple[str, Any]]] = [
    # The node and its cluster.
    ("getHealth", []),
    ("getVersion", []),
    ("getIdentity", []),
    ("getGenesisHash", []),
    ("getClusterNodes", []),
    ("getSlot", []),
    ("getSlot", [{"commitment": "processed"}]),
    ("getSlot", [{"commitment": "max"}]),
    ("getSlot", [{"commitment": "sure"}]),
    ("getSlot", [{"minContextSlot": FAR}]),
    ("getSlot", [{"minContextSlot": -1}]),
    ("getSlot", ["finalized"]),
    ("getSlot", {"commitment": "finalized"}),
    ("getBlockHeight", []),
    ("getBlockHeight", [{"minContextSlot": FAR}]),
    ("getBlockHeight", [{"commitment": "sure"}]),
    ("getEpochInfo", []),
    ("getEpochInfo", [{"minContextSlot": FAR}]),
    ("getEpochSchedule", []),
    ("getFirstAvailableBlock", []),
    ("minimumLedgerSlot", []),
    ("getHighestSnapshotSlot", []),
    ("getMaxRetransmitSlot", []),
    ("getMaxShredInsertSlot", []),
    ("getTransactionCount", []),
    ("getTransactionCount", [{"minContextSlot": FAR}]),
    ("getSlotLeader", []),
    ("getSlotLeader", [{"minContextSlot": FAR}]),
    ("getSlotLeaders", [1, 3]),
    ("getSlotLeaders", []),
    ("getSlotLeaders", [1, 5001]),
    ("getSlotLeaders", [FAR, 1]),
    ("getLeaderSchedule", []),
    ("getLeaderSchedule", [None, {"identity": SYSTEM}]),
    ("getLeaderSchedule", [FAR]),
    ("getLeaderSchedule", [0, {"identity": "x"}]),
    ("getBlockProduction", []),
    ("getBlockProduction", [{"identity": SYSTEM}]),
    ("getBlockProduction", [{"range": {"firstSlot": 5, "lastSlot": 3}}]),
    ("getBlockProduction", [{"range": {"firstSlot": 0, "lastSlot": FAR}}]),
    ("getBlockCommitment", ["$paid_slot"]),
    ("getBlockCommitment", [FAR]),
    ("getRecentPerformanceSamples", []),
    ("getRecentPerformanceSamples", [1]),
    ("getRecentPerformanceSamples", [721]),
    ("getRecentPrioritizationFees", []),
    ("getRecentPrioritizationFees", [["$alice"]]),
    ("getRecentPrioritizationFees", [["$alice"] * 129]),
    ("getVoteAccounts", []),
    ("getVoteAccounts", [{"votePubkey": SYSTEM}]),
    ("getInflationGovernor", []),
    ("getInflationRate", []),
    ("getInflationReward", [["$alice"]]),
    ("getInflationReward", [["$alice"], {"epoch": FAR}]),
    ("getStakeMinimumDelegation", []),
    ("getSupply", []),
    ("getSupply", [{"excludeNonCirculatingAccountsList": True}]),
    ("getLargestAccounts", []),
    ("getLargestAccounts", [{"filter": "circulating"}]),
    ("getLargestAccounts", [{"filter": "mine"}]),
    # Accounts.
    ("getBalance", ["$alice"]),
    ("getBalance", [NOBODY[:-1]]),
    ("getBalance", ["nonsense"]),
    ("getBalance", []),
    ("getBalance", [5]),
    ("getBalance", ["$alice", {"commitment": "sure"}]),
    ("getBalance", ["$alice", {"minContextSlot": FAR}]),
    ("getAccountInfo", ["$alice"]),
    ("getAccountInfo", ["$alice", {"encoding": "base58"}]),
    ("getAccountInfo", ["$mint", B64]),
    ("getAccountInfo", ["$mint", {"encoding": "base64+zstd"}]),
    ("getAccountInfo", ["$mint", B64 | {"dataSlice": {"offset": 36, "length": 8}}]),
    ("getAccountInfo", ["$mint", B64 | {"dataSlice": {"offset": 500, "length": 8}}]),
    ("getAccountInfo", ["$mint", B64 | {"dataSlice": {"offset": -1, "length": 8}}]),
    ("getAccountInfo", ["$mine"]),
    ("getAccountInfo", ["$mine", {"encoding": "hex"}]),
    ("getAccountInfo", ["$mine", 5]),
    ("getAccountInfo", ["$mine", B64 | {"minContextSlot": FAR}]),
    ("getAccountInfo", ["$mine", B64 | {"commitment": "sure"}]),
    *[("getAccountInfo", [f"${name}", PARSED]) for name in ("alice", "mint", "mine", "his", "table", "nonce")],
    ("getAccountInfo", ["SysvarC1ock11111111111111111111111111111111", PARSED]),
    ("getAccountInfo", ["SysvarRent111111111111111111111111111111111", PARSED]),
    ("getAccountInfo", ["SysvarEpochSchedu1e111111111111111111111111", PARSED]),
    ("getAccountInfo", ["SysvarS1otHashes111111111111111111111111111", PARSED]),
    ("getAccountInfo", ["SysvarRecentB1ockHashes11111111111111111111", PARSED]),
    ("getMultipleAccounts", [["$mint", SYSTEM, "$mine"], B64]),
    ("getMultipleAccounts", [["$mint"], PARSED]),
    ("getMultipleAccounts", [["$alice"] * 101]),
    ("getMultipleAccounts", [["x"]]),
    ("getMultipleAccounts", ["x"]),
    ("getMultipleAccounts", [["$alice"], {"minContextSlot": FAR}]),
    ("getProgramAccounts", [TOKEN, PARSED | {"filters": [{"dataSize": 82}]}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"memcmp": {"offset": 32, "bytes": "$alice"}}]}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"dataSize": 82}], "withContext": True}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"dataSize": 9}]}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"dataSize": 1}] * 5}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": ["tokenAccountState"], "sortResults": True}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"memcmp": {"offset": 0, "bytes": "0OIl"}}]}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"memcmp": {"offset": 0, "bytes": "1" * 200}}]}]),
    ("getProgramAccounts", [TOKEN, B64 | {"filters": [{"other": 1}]}]),
    ("getProgramAccounts", ["x"]),
    ("getMinimumBalanceForRentExemption", [165]),
    ("getMinimumBalanceForRentExemption", [1 << 40]),
    ("getMinimumBalanceForRentExemption", [-1]),
    # Tokens.
    ("getTokenAccountBalance", ["$mine"]),
    ("getTokenAccountBalance", ["$mint"]),
    ("getTokenAccountBalance", ["$alice"]),
    ("getTokenAccountBalance", [SYSTEM[:-1] + "2"]),
    ("getTokenSupply", ["$mint"]),
    ("getTokenSupply", ["$mine"]),
    ("getTokenSupply", ["$alice"]),
    ("getTokenLargestAccounts", ["$mint"]),
    ("getTokenLargestAccounts", ["$mine"]),
    ("getTokenLargestAccounts", ["$alice"]),
    ("getTokenAccountsByOwner", ["$alice", {"mint": "$mint"}, B64]),
    ("getTokenAccountsByOwner", ["$alice", {"programId": TOKEN}, PARSED]),
    ("getTokenAccountsByOwner", ["$alice", {"programId": SYSTEM}, B64]),
    ("getTokenAccountsByOwner", ["$alice", {"mint": "$alice"}, B64]),
    ("getTokenAccountsByOwner", ["$alice", {}, B64]),
    ("getTokenAccountsByOwner", ["$alice", {"mint": "$mint"}, B64 | {"minContextSlot": FAR}]),
    ("getTokenAccountsByDelegate", ["$bob", {"mint": "$mint"}, PARSED]),
    ("getTokenAccountsByDelegate", ["$bob", {"programId": TOKEN}, B64]),
    ("getTokenAccountsByDelegate", ["$alice", {"programId": TOKEN}, B64]),
    # Transactions.
    *[("getTransaction", [f"${name}", PARSED | V0]) for name in ("airdrop", "paid", "failed", "issued", "moved")],
    *[("getTransaction", [f"${name}", PARSED | V0]) for name in ("tabled", "looked", "begun", "offline")],
    *[("getTransaction", [f"${name}", {"encoding": "json"} | V0]) for name in ("issued", "moved", "looked", "failed")],
    ("getTransaction", ["$looked", B64 | V0]),
    ("getTransaction", ["$paid", {"encoding": "base58"} | V0]),
    ("getTransaction", ["$paid", {"encoding": "binary"} | V0]),
    ("getTransaction", ["$paid"]),
    ("getTransaction", ["$paid", "json"]),
    ("getTransaction", ["$paid", {"encoding": "xml"}]),
    ("getTransaction", ["$airdrop"]),
    ("getTransaction", ["$paid", V0 | {"commitment": "processed"}]),
    ("getTransaction", ["$paid", V0 | {"commitment": "sure"}]),
    ("getTransaction", [NOWHERE, V0]),
    ("getTransaction", ["x", V0]),
    ("getSignatureStatuses", [["$paid", "$failed", NOWHERE]]),
    ("getSignatureStatuses", [["$paid"], {"searchTransactionHistory": True}]),
    ("getSignatureStatuses", [["$paid"] * 257]),
    ("getSignatureStatuses", [["x"]]),
    ("getSignaturesForAddress", ["$bob"]),
    ("getSignaturesForAddress", ["$bob", {"limit": 1}]),
    ("getSignaturesForAddress", ["$bob", {"before": "$looked", "until": "$paid"}]),
    ("getSignaturesForAddress", ["$bob", {"limit": 0}]),
    ("getSignaturesForAddress", ["$bob", {"limit": 1001}]),
    ("getSignaturesForAddress", ["$bob", {"before": "x"}]),
    ("getSignaturesForAddress", ["$bob", {"commitment": "processed"}]),
    ("getSignaturesForAddress", ["$bob", {"minContextSlot": FAR}]),
    # Blocks.
    *[("getBlock", ["$paid_slot", V0 | {"transactionDetails": kind}]) for kind in ("none", "signatures", "accounts")],
    ("getBlock", ["$paid_slot", V0 | {"rewards": False}]),
    ("getBlock", ["$looked_slot", V0 | PARSED]),
    ("getBlock", ["$looked_slot", V0 | {"transactionDetails": "accounts"}]),
    ("getBlock", ["$paid_slot", V0 | {"transactionDetails": "some"}]),
    ("getBlock", ["$paid_slot"]),
    ("getBlock", ["$paid_slot", V0 | {"commitment": "processed"}]),
    ("getBlock", [FAR, V0]),
    ("getBlock", ["x", V0]),
    ("getBlocks", ["$paid_slot", "$paid_slot"]),
    ("getBlocks", ["$paid_slot", "$airdrop_slot"]),
    ("getBlocks", [0, 1 << 40]),
    ("getBlocks", [0, 10, {"commitment": "processed"}]),
    ("getBlocksWithLimit", ["$paid_slot", 1]),
    ("getBlocksWithLimit", ["$paid_slot", 0]),
    ("getBlocksWithLimit", [0, 500_001]),
    ("getBlocksWithLimit", [0, 1, {"commitment": "processed"}]),
    ("getBlockTime", ["$paid_slot"]),
    ("getBlockTime", [FAR]),
    # Sending.
    ("getLatestBlockhash", []),
    ("getLatestBlockhash", [{"commitment": "sure"}]),
    ("getLatestBlockhash", [{"minContextSlot": FAR}]),
    ("isBlockhashValid", [SYSTEM]),
    ("isBlockhashValid", ["zzz"]),
    ("isBlockhashValid", [SYSTEM, {"minContextSlot": FAR}]),
    ("getFeeForMessage", ["$stale_message"]),
    ("getFeeForMessage", ["$fresh_message"]),
    ("getFeeForMessage", ["AAAA"]),
    ("getFeeForMessage", ["!"]),
    ("simulateTransaction", ["$stale", B64]),
    ("simulateTransaction", ["$stale", B64 | {"replaceRecentBlockhash": True}]),
    ("simulateTransaction", ["$stale", B64 | {"replaceRecentBlockhash": True, "sigVerify": True}]),
    ("simulateTransaction", ["$forged", B64 | {"sigVerify": True}]),
    ("simulateTransaction", ["$overdrawn", B64]),
    ("simulateTransaction", ["$tokens", B64 | {"innerInstructions": True}]),
    ("simulateTransaction", ["$tokens", B64 | {"accounts": {"addresses": ["$mine"], "encoding": "jsonParsed"}}]),
    ("simulateTransaction", ["$tokens", B64 | {"accounts": {"addresses": ["$mine"], "encoding": "base58"}}]),
    ("simulateTransaction", ["$tokens", B64 | {"accounts": {"addresses": ["$mine"] * 9, "encoding": "base64"}}]),
    ("simulateTransaction", ["$tokens", B64 | {"minContextSlot": FAR}]),
    ("requestAirdrop", ["$his", 1_000_000_000]),
    ("requestAirdrop", ["$bob", -1]),
    ("requestAirdrop", ["x", 1]),
    ("sendTransaction", ["$stale", B64]),
    ("sendTransaction", ["$stale", B64 | {"minContextSlot": FAR}]),
    ("sendTransaction", ["$stale", {"encoding": "jsonParsed"}]),
    ("sendTransaction", ["$overdrawn", B64]),
    ("sendTransaction", ["$forged", B64]),
    ("sendTransaction", ["$fresh", B64]),
    ("sendTransaction", ["AAAA", B64]),
    ("sendTransaction", ["!", B64]),
    ("sendTransaction", ["1" * 2000]),
    ("sendTransaction", [None]),
    # What no node has.
    ("getRecentBlockhash", []),
    ("nothing", []),
]
SUBSCRIPTIONS: Final[list[tuple[str, Any]]] = [
    ("slotSubscribe", []),
    ("rootSubscribe", []),
    ("signatureSubscribe", ["$next", {"commitment": "processed", "enableReceivedNotification": True}]),
    ("accountSubscribe", ["$bob", {"encoding": "jsonParsed", "commitment": "processed"}]),
    ("programSubscribe", [SYSTEM, B64 | {"commitment": "processed", "filters": [{"dataSize": 0}]}]),
    ("logsSubscribe", [{"mentions": ["$bob"]}, {"commitment": "processed"}]),
    ("slotSubscribe", ["x"]),
    ("signatureSubscribe", ["x"]),
    ("signatureSubscribe", []),
    ("accountSubscribe", ["x"]),
    ("accountSubscribe", ["$bob", {"encoding": "hex"}]),
    ("programSubscribe", ["x"]),
    ("programSubscribe", [SYSTEM, {"filters": [{"dataSize": 1}] * 5}]),
    ("logsSubscribe", ["some"]),
    ("logsSubscribe", [{"mentions": ["x"]}]),
    ("logsSubscribe", [{"mentions": ["$alice", "$bob"]}]),
    ("signatureUnsubscribe", [1 << 40]),
    ("signatureUnsubscribe", ["x"]),
    ("signatureUnsubscribe", []),
    ("blockSubscribe", ["all"]),
    ("voteSubscribe", []),
    ("slotsUpdatesSubscribe", []),
    ("getSlot", []),
    ("nothing", []),
]
METHODS: Final = sorted({method for method, _ in REQUESTS + SUBSCRIPTIONS})
CLUSTER: Final = {
    "getVersion", "getClusterNodes", "getEpochInfo", "getEpochSchedule", "getFirstAvailableBlock", "minimumLedgerSlot",
    "getHighestSnapshotSlot", "getMaxRetransmitSlot", "getMaxShredInsertSlot", "getTransactionCount", "getSlotLeaders",
    "getLeaderSchedule", "getBlockProduction", "getBlockCommitment", "getRecentPerformanceSamples",
    "getRecentPrioritizationFees", "getVoteAccounts", "getInflationGovernor", "getInflationRate", "getSupply",
    "getLargestAccounts", "getSlot", "getBlockHeight",
}  # fmt: skip
VOLATILE: Final = {
    "slot", "blockTime", "blockHeight", "contextSlot", "lastValidBlockHeight", "parentSlot", "lastExtendedSlot",
    "recentSlot", "bumpSeed", "transactionIndex", "postBalance", "unixTimestamp", "epochStartTimestamp", "epoch",
    "leaderScheduleEpoch",
}  # fmt: skip
"""Keys whose numbers depend on when a request is made."""
OF_THE_BUILD: Final = {"computeUnitsConsumed", "costUnits", "unitsConsumed", "loadedAccountsDataSize"}
"""Keys whose numbers depend on how the token and memo programs were compiled."""
_KNOWN: Final = {SYSTEM, TOKEN, TABLES}
_VOTES: Final = "Vote111111111111111111111111111111111111111"
_PARSERS_WORDS: Final = re.compile(
    "Invalid params: |`params` should have|failed to deserialize|invalid base|base58 encoded|.*Base58Decode"
)
_NEWEST: Final = re.compile("(?<=is too large; max )[0-9]+$")
_OF_A_PROGRAM: Final = re.compile(" consumed |^Program log: |^Program return: ")
_BASE58: Final = re.compile("[1-9A-HJ-NP-Za-km-z]{32,88}")


def name_of(method: str, params: object) -> str:
    """A request in one line."""
    return f"{method} {params}"


def filled(params: Any, names: Names) -> Any:
    """Parameters with the names replaced by what they stand for."""
    match params:
        case str() if params.startswith("$"):
            return names[params[1:]]
        case list():
            return [filled(value, names) for value in params]
        case dict():
            return {key: filled(value, names) for key, value in params.items()}
    return params


def canonical(method: str, answer: Mapping[str, Any], names: Names) -> Any:
    """An answer without what differs from node to node and from run to run."""
    words = {value: f"${name}" for name, value in names.items() if isinstance(value, str)}
    if "error" in answer:
        error = answer["error"]
        told = "<why>" if _PARSERS_WORDS.match(error["message"]) else _NEWEST.sub("<slot>", error["message"])
        return {"error": _exact(error | {"message": told}, words)}
    result = answer["result"]
    if method == "getBlock" and "transactions" in result:
        result = result | {"transactions": [tx for tx in result["transactions"] if _VOTES not in json.dumps(tx)]}
    if method == "getBlock" and "signatures" in result:
        result = result | {"signatures": [one for one in result["signatures"] if one in words]}
    if method in ("getBlocks", "getBlocksWithLimit", "getBlockTime") or method.endswith("Subscribe"):
        return _shape(result)
    return _shape(result) if method in CLUSTER else _exact(result, words)


def noticed(kind: str, result: Any, names: Names) -> Any:
    """A notification's result in the same form."""
    words = {value: f"${name}" for name, value in names.items() if isinstance(value, str)}
    return _shape(result) if kind in ("slot", "root") else _exact(result, words)


def _exact(value: Any, words: Mapping[str, str], key: str = "") -> Any:
    match value:
        case dict():
            held = dict(value)
            if held.get("preBalances") and held.get("postBalances"):
                pairs = zip(held.pop("preBalances"), held.pop("postBalances"), strict=True)
                held["changes"] = [after - before for before, after in pairs]
            if held.get("rewardType"):
                held["lamports"] = "<integer>"  # a leader's: the votes in the block pay too
            return {name: _exact(held[name], words, name) for name in sorted(held)}
        case [str(), "base64+zstd"]:
            return ["<packed>", "base64+zstd"]
        case [dict() as first, *_] if key == "info":
            return [_shape(first)]
        case list() if key in ("logMessages", "logs"):
            return [_exact(line, words) for line in value if not _OF_A_PROGRAM.search(line)]
        case list():
            return [_exact(one, words, key) for one in value]
        case str() if key in VOLATILE and value.isdecimal():
            return "<integer>"
        case str() if value in words:
            return words[value]
        case str():
            if key == "transaction":
                return "<wire>"
            known = value in _KNOWN or value.endswith("1" * 12) or not _BASE58.fullmatch(value)
            return value if known else "<base58>"
        case int() if key in VOLATILE | OF_THE_BUILD and not isinstance(value, bool):
            return "<integer>"
    return value


def _shape(value: Any) -> Any:
    match value:
        case dict():
            return {
                "<base58>" if _BASE58.fullmatch(name) else name: _shape(held) for name, held in sorted(value.items())
            }
        case list():
            shapes: list[Any] = []
            for held in value:
                if (shape := _shape(held)) not in shapes:
                    shapes.append(shape)
            return shapes
        case bool() | None:
            return value if value is None else "<boolean>"
        case str():
            return "<base58>" if _BASE58.fullmatch(value) else "<text>"
        case int() | float():
            return "<integer>" if isinstance(value, int) else "<number>"
    raise TypeError(type(value))
