"""The local node's methods about itself and its cluster: one validator with all of the stake, and no inflation paid.

What a single-node cluster of Agave says follows from few facts: every slot has one leader and is final at once.
"""

from __future__ import annotations

from collections.abc import Callable

from solders.epoch_schedule import EpochSchedule

from chain.localnet.context import VERSION, NodeContext
from chain.localnet.parameters import BLOCK_NOT_AVAILABLE, INVALID_PARAMS, Params, Refusal, key_of, number
from chain.localnet.parsed import epoch_schedule
from chain.network.base import LAMPORTS_PER_SOL
from chain.network.ledger import SLOT_MS
from chain.network.vm import SLOTS_PER_EPOCH

_FEATURE_SET, _SHRED_VERSION = 3345198602, 1
_STAKE = 1_000_000 * LAMPORTS_PER_SOL
_ROOTED_DEPTH = 32  # votes on top of a slot that make it final
_MAX_LEADERS, _MAX_SAMPLES = 5_000, 720
_SAMPLE_SECONDS = 60
_SAMPLE_SLOTS = _SAMPLE_SECONDS * 1000 // SLOT_MS
# Of the first epoch; nothing is ever paid.
_GOVERNOR = {"initial": 0.08, "terminal": 0.015, "taper": 0.15, "foundation": 0.05, "foundationTerm": 7.0}
_RATE = {"total": 0.08, "validator": 0.076, "foundation": 0.004}


class ClusterMethods:
    """Each method is a function from parameters to a result."""

    def __init__(self, context: NodeContext, port: int) -> None:
        self._context, self._network, self._port = context, context.network, port
        self.table: dict[str, Callable[[Params], object]] = {
            "getHealth": lambda p: "ok",
            "getVersion": lambda p: {"solana-core": VERSION, "feature-set": _FEATURE_SET},
            "getIdentity": lambda p: {"identity": str(context.identity)},
            "getGenesisHash": lambda p: str(context.network.genesis_hash),
            "getClusterNodes": self._nodes,
            "getSlot": lambda p: context.slot(p.config(0)),
            "getBlockHeight": self._block_height,
            "getEpochInfo": self._epoch_info,
            "getEpochSchedule": lambda p: epoch_schedule(EpochSchedule.without_warmup()),
            "getFirstAvailableBlock": lambda p: self._network.first_slot(),
            "minimumLedgerSlot": lambda p: self._network.first_slot(),
            "getHighestSnapshotSlot": lambda p: {"full": self._network.clock().slot, "incremental": None},
            "getMaxRetransmitSlot": lambda p: 0,
            "getMaxShredInsertSlot": lambda p: 0,
            "getTransactionCount": self._transaction_count,
            "getSlotLeader": self._leader,
            "getSlotLeaders": self._leaders,
            "getLeaderSchedule": self._schedule,
            "getBlockProduction": self._production,
            "getBlockCommitment": self._commitment,
            "getRecentPerformanceSamples": self._samples,
            "getVoteAccounts": self._votes,
            "getInflationGovernor": lambda p: _GOVERNOR,
            "getInflationRate": lambda p: _RATE | {"epoch": self._epoch(self._network.clock().slot)},
            "getInflationReward": self._reward,
            "getStakeMinimumDelegation": lambda p: context.at(context.slot(p.config(0)), LAMPORTS_PER_SOL),
        }

    def _epoch(self, slot: int) -> int:
        return slot // SLOTS_PER_EPOCH

    def _nodes(self, params: Params) -> object:
        here = f"127.0.0.1:{self._port}"
        absent = ("gossip", "serveRepair", "tpu", "tpuForwards", "tpuForwardsQuic", "tpuQuic", "tpuVote", "tvu")
        return [
            {
                "clientId": "Agave",
                "featureSet": _FEATURE_SET,
                "pubkey": str(self._context.identity),
                "rpc": here,
                "pubsub": f"127.0.0.1:{self._port + 1}",
                "shredVersion": _SHRED_VERSION,
                "version": VERSION,
                **dict.fromkeys(absent),
            }
        ]

    def _block_height(self, params: Params) -> object:
        self._context.slot(params.config(0))
        return self._network.block_height()

    def _transaction_count(self, params: Params) -> object:
        self._context.slot(params.config(0))
        return self._network.transaction_count()

    def _epoch_info(self, params: Params) -> object:
        slot = self._context.slot(params.config(0))
        epoch, index = divmod(slot, SLOTS_PER_EPOCH)
        return {
            "absoluteSlot": slot,
            "blockHeight": self._network.block_height(),
            "epoch": epoch,
            "slotIndex": index,
            "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": self._network.transaction_count(),
        }

    def _leader(self, params: Params) -> object:
        self._context.slot(params.config(0))
        return str(self._context.identity)

    def _leaders(self, params: Params) -> object:
        first, limit = params.number(0), params.number(1)
        if limit > _MAX_LEADERS:
            raise Refusal(INVALID_PARAMS, f"Invalid limit; max {_MAX_LEADERS}")
        if self._epoch(first) > self._epoch(self._network.clock().slot) + 1:
            raise Refusal(
                INVALID_PARAMS,
                f"Invalid slot range: leader schedule for epoch {self._epoch(first)} is unavailable",
            )
        return [str(self._context.identity)] * limit

    def _schedule(self, params: Params) -> object:
        config = params.config(1 if params.get(0) is None or not isinstance(params.get(0), dict) else 0)
        now = self._network.clock().slot
        slot = params.number(0) if isinstance(params.get(0), int) else now
        asked = config.get("identity")
        if asked is not None and key_of(asked) != self._context.identity:
            return {}
        if self._epoch(slot) > self._epoch(now) + 1:
            return None
        return {str(self._context.identity): list(range(SLOTS_PER_EPOCH))}

    def _production(self, params: Params) -> object:
        config = params.config(0)
        slot = self._context.slot(config)
        span = config.get("range") or {}
        if not isinstance(span, dict):
            raise Refusal(INVALID_PARAMS, "Invalid params: range must be an object")
        first = number(span, "firstSlot", self._epoch(slot) * SLOTS_PER_EPOCH)
        last = number(span, "lastSlot", slot)
        if last < first:
            raise Refusal(INVALID_PARAMS, f"lastSlot, {last}, cannot be less than firstSlot, {first}")
        if last > slot:
            raise Refusal(INVALID_PARAMS, f"lastSlot, {last}, is too large; max {slot}")
        asked, here = config.get("identity"), self._context.identity
        count = last - first + 1
        by = {str(here): [count, count]} if asked is None or key_of(asked) == here else {}
        return self._context.at(slot, {"byIdentity": by, "range": {"firstSlot": first, "lastSlot": last}})

    def _commitment(self, params: Params) -> object:
        known = params.number(0) <= self._network.clock().slot
        votes = [0] * (_ROOTED_DEPTH - 1) + [_STAKE]
        return {"commitment": votes if known else None, "totalStake": _STAKE}

    def _samples(self, params: Params) -> object:
        limit = _MAX_SAMPLES if params.get(0) is None else params.number(0)
        if limit > _MAX_SAMPLES:
            raise Refusal(INVALID_PARAMS, f"Invalid limit; max {_MAX_SAMPLES}")
        newest = self._network.clock().slot // _SAMPLE_SLOTS * _SAMPLE_SLOTS
        found = []
        with self._network.reading() as ledger:
            for slot in range(newest, max(0, newest - limit * _SAMPLE_SLOTS), -_SAMPLE_SLOTS):
                count = ledger.transactions_between(slot - _SAMPLE_SLOTS + 1, slot)
                found.append(
                    {
                        "slot": slot,
                        "numSlots": _SAMPLE_SLOTS,
                        "numTransactions": count,
                        "numNonVoteTransactions": count,
                        "samplePeriodSecs": _SAMPLE_SECONDS,
                    }
                )
        return found

    def _votes(self, params: Params) -> object:
        config = params.config(0)
        slot, asked = self._context.slot(config), config.get("votePubkey")
        account = {
            "votePubkey": str(self._context.vote_account),
            "nodePubkey": str(self._context.identity),
            "activatedStake": _STAKE,
            "commission": 0,
            "inflationRewardsCommissionBps": 0,
            "epochCredits": [[self._epoch(slot), slot, 0]],
            "epochVoteAccount": True,
            "lastVote": slot,
            "rootSlot": slot,
        }
        mine = asked is None or key_of(asked) == self._context.vote_account
        return {"current": [account] if mine else [], "delinquent": []}

    def _reward(self, params: Params) -> object:
        """Rewards are known once the epoch after has begun, and none are paid."""
        addresses, config = params.get(0), params.config(1)
        if not isinstance(addresses, list):
            raise Refusal(INVALID_PARAMS, "Invalid params: a list of addresses was expected")
        for address in addresses:
            key_of(address)
        slot = self._context.slot(config)
        epoch = number(config, "epoch", max(0, self._epoch(slot) - 1))
        after = min((epoch + 1) * SLOTS_PER_EPOCH, (1 << 64) - 1)
        if after > slot:
            raise Refusal(BLOCK_NOT_AVAILABLE, f"Block not available for slot {after}")
        return [None] * len(addresses)
