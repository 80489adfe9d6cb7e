"""What a subscription of the local node's websocket is told, as a real node (Agave) words it.

A feed makes notifications of what came since it was last asked; the ledger keeps all of it, so nothing queues up for a
client that reads slowly. Every transaction is final at once, so every commitment gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from chain.localnet.accounts import filters_of
from chain.localnet.context import NodeContext
from chain.localnet.parameters import INVALID_PARAMS, Params, Refusal, choice, flag, key_of, signature_of
from chain.localnet.shapes import ENCODINGS
from chain.network.base import Account, matches
from chain.network.embedded import EmbeddedNetwork
from chain.network.ledger import LandedTransaction
from chain.network.vm import MOVING_SYSVARS

MAX_RECORDS: Final = 1000  # transactions told at once
MAX_SLOTS: Final = 64  # slots told at once, the newest


@dataclass(frozen=True, slots=True)
class NewsSince:
    """What came since a feed was last asked: slots, transactions oldest first, and accounts as they are now."""

    slots: range
    records: list[LandedTransaction]
    changes: dict[Pubkey, Account]

    @property
    def slot(self) -> int:
        """The newest slot."""
        return self.slots.stop - 1


class Position:
    """How far a session has been told."""

    def __init__(self, network: EmbeddedNetwork) -> None:
        self._network = network
        self._slot, self._revision = -1, 0
        self.next()

    def next(self) -> NewsSince | None:
        """What came since; None where nothing did."""
        with self._network.reading() as ledger:
            revision, slot = ledger.state().revision, self._network.clock().slot
            if (revision, slot) == (self._revision, self._slot):
                return None
            first, since = self._slot, self._revision
            if first < 0:  # the beginning: nothing before it is told
                self._slot, self._revision = slot, revision
                return None
            records = ledger.records_after(first, MAX_RECORDS)
            if len(records) == MAX_RECORDS:
                slot = records[-1].slot
            changes = {
                key: account
                for executable in (False, True)
                for key, account in ledger.accounts_after(since, executable=executable)
            }
        self._slot, self._revision = slot, revision
        return NewsSince(range(first + 1, slot + 1), records, changes)


class Feed(Protocol):
    """One subscription."""

    kind: str
    done: bool

    def news(self, since: NewsSince) -> list[object]:
        """The results to notify of, oldest first."""


class Slots:
    """Every slot."""

    kind, done = "slot", False

    def news(self, since: NewsSince) -> list[object]:
        return [{"slot": slot, "parent": slot - 1, "root": slot} for slot in since.slots[-MAX_SLOTS:]]


class Roots:
    """Every slot that is final, which all are."""

    kind, done = "root", False

    def news(self, since: NewsSince) -> list[object]:
        return list(since.slots[-MAX_SLOTS:])


class SignatureNews:
    """The fate of one transaction, told once."""

    kind = "signature"

    def __init__(self, context: NodeContext, signature: Signature) -> None:
        self.done = False
        self._context, self._signature = context, signature
        self._record = context.network.record(signature)  # landed before anybody asked

    def news(self, since: NewsSince) -> list[object]:
        record = self._record or next((one for one in since.records if one.signature == self._signature), None)
        if record is None:
            return []
        self.done = True
        return [self._context.noticed(record.slot, {"err": record.error})]


class Logs:
    """The logs of every transaction, or of those that name one address."""

    kind, done = "logs", False

    def __init__(self, context: NodeContext, mentioned: Pubkey | None) -> None:
        self._context, self._mentioned = context, mentioned

    def news(self, since: NewsSince) -> list[object]:
        return [
            self._context.noticed(
                record.slot,
                {"signature": str(record.signature), "err": record.error, "logs": record.logs},
            )
            for record in since.records
            if self._mentioned is None or self._mentioned in _named(record)
        ]


class AccountNews:
    """One account, whenever it was written."""

    kind, done = "account", False

    def __init__(self, context: NodeContext, key: Pubkey, config: Mapping[str, object]) -> None:
        self._context, self._key, self._config = context, key, config

    def news(self, since: NewsSince) -> list[object]:
        account = since.changes.get(self._key)
        if self._key in MOVING_SYSVARS and since.slots:
            account = self._context.network.account(self._key)
        if account is None:
            return []
        return [self._context.noticed(since.slot, _shown(self._context, self._key, account, self._config))]


class ProgramNews:
    """The accounts of one program that meet the filters, whenever one was written."""

    kind, done = "program", False

    def __init__(self, context: NodeContext, program: Pubkey, config: Mapping[str, object]) -> None:
        self._context, self._program, self._config = context, program, config
        try:
            self._size, self._memcmp = filters_of(config)
        except Refusal as refusal:
            raise Refusal(INVALID_PARAMS, f"Invalid params: {refusal}") from None

    def news(self, since: NewsSince) -> list[object]:
        return [
            self._context.noticed(
                since.slot,
                {"pubkey": str(key), "account": _shown(self._context, key, account, self._config)},
            )
            for key, account in since.changes.items()
            if account.owner == self._program and account.lamports and matches(account.data, self._size, self._memcmp)
        ]


def _named(record: LandedTransaction) -> list[Pubkey]:
    message = VersionedTransaction.from_bytes(record.wire).message
    own = message.account_keys if isinstance(message, Message | MessageV0) else []
    return [*own, *record.loaded[0], *record.loaded[1]]


def _shown(context: NodeContext, key: Pubkey, account: Account, config: Mapping[str, object]) -> object:
    try:
        return context.account(account, config, key)
    except Refusal:  # too large for base 58
        shown: Any = context.account(account, {**config, "encoding": "base64"}, key)
        return shown | {"data": "error: data too large for bs58 encoding"}


def _subscribed_key(value: object, what: str) -> Pubkey:
    if not isinstance(value, str):
        raise Refusal(INVALID_PARAMS, "Invalid params: a string was expected")
    try:
        return key_of(value)
    except Refusal:
        raise Refusal(INVALID_PARAMS, f"Invalid Request: Invalid {what} provided") from None


def _nothing(params: Params) -> None:
    if params.get(0) is not None:
        raise Refusal(INVALID_PARAMS, "Invalid parameters: No parameters were expected")


def _slots(context: NodeContext, params: Params) -> Feed:
    _nothing(params)
    return Slots()


def _roots(context: NodeContext, params: Params) -> Feed:
    _nothing(params)
    return Roots()


def _signature(context: NodeContext, params: Params) -> Feed:
    text, config = params.text(0), params.config(1)
    try:
        signature = signature_of(text)
    except Refusal:
        raise Refusal(INVALID_PARAMS, "Invalid Request: Invalid signature provided") from None
    flag(config, "enableReceivedNotification")  # Agave 4.1.2 takes it, and still notifies once
    return SignatureNews(context, signature)


def _logs(context: NodeContext, params: Params) -> Feed:
    params.config(1)
    match params.get(0):
        case "all" | "allWithVotes":
            return Logs(context, None)
        case {"mentions": [one]}:
            return Logs(context, _subscribed_key(one, "mentions"))
        case {"mentions": list()}:
            raise Refusal(INVALID_PARAMS, "Invalid Request: Only 1 address supported")
    raise Refusal(INVALID_PARAMS, "Invalid params: all, or mentions of one address, was expected")


def _account(context: NodeContext, params: Params) -> Feed:
    config = params.config(1)
    choice(config, "encoding", "binary", ENCODINGS)
    return AccountNews(context, _subscribed_key(params.get(0), "pubkey"), config)


def _program(context: NodeContext, params: Params) -> Feed:
    config = params.config(1)
    choice(config, "encoding", "binary", ENCODINGS)
    return ProgramNews(context, _subscribed_key(params.get(0), "pubkey"), config)


KINDS: Final[Mapping[str, Callable[[NodeContext, Params], Feed]]] = {
    "signature": _signature,
    "slot": _slots,
    "root": _roots,
    "account": _account,
    "program": _program,
    "logs": _logs,
}
"""How each kind of subscription begins: `<kind>Subscribe`, `<kind>Unsubscribe` and `<kind>Notification`."""
