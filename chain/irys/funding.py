"""Pay an uploader: transfer lamports to its address, wait until that is final, have it credited.

Rules for money:

 1. The transfer's signature is on disk before it is sent. Its fate is read from the network, never guessed.
 2. While a deposit is open (sent, and neither credited nor known dead) no new one is paid: `fund` finishes the
    open ones, and pays only where there were none or all of them are dead.
 3. Only a transfer that is final is named to the uploader; naming it again is harmless and done until it is
    accepted, also by a later run.

One JSON file per deposit in a folder of the home; processes that pay from the same home take turns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer

from chain.errors import ChainError, InvalidData, NetworkUnreachable, TransactionFailed
from chain.irys.client import Irys
from chain.money.client import Client
from chain.network.base import FEE_PER_SIGNATURE, sol
from common.files import locked, write_atomic

FINALITY_SECONDS = 120.0
_POSTS, _LONGEST_WAIT = 6, 16.0
_OTHERS_SECONDS = 900.0  # for another process of this home to pay and be credited
Say = Callable[[str], None]


class State(StrEnum):
    """OPEN: may be sent, may have landed. CREDITED: the uploader accepted it. DEAD: it never landed."""

    OPEN = "open"
    CREDITED = "credited"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Deposit:
    """A transfer on record: base58 texts; `last_valid` the last block height at which it can land."""

    signature: str
    last_valid: int
    lamports: int
    payer: str
    address: str
    uploader: str
    network: str
    state: State = State.OPEN

    def dump(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Deposit:
        """The inverse of `dump`; InvalidData if a field is missing, of another type or no such text."""
        try:
            value = json.loads(raw)
            found = cls(**{**value, "state": State(value["state"])})
            kinds = {"last_valid": int, "lamports": int, "state": State}
            if any(type(content) is not kinds.get(name, str) for name, content in asdict(found).items()):
                raise ValueError("a field of another type")
            Signature.from_string(found.signature)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidData(f"Not a deposit record: {repr(error)[:200]}.") from None
        return found


class Deposits:
    """The deposits on record under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, deposit: Deposit) -> None:
        """Write one, on disk when this returns."""
        name = bytes(Signature.from_string(deposit.signature)).hex()[:32]
        write_atomic(self.folder / f"{name}.json", deposit.dump(), mode=0o600)

    def all(self) -> list[Deposit]:
        """Every deposit; InvalidData, naming the file, where one does not parse."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(Deposit.parse(path.read_bytes()))
            except InvalidData as error:
                raise InvalidData(
                    f"{path} is damaged. {error.problem}",
                    "Look up the wallet's last transfers and restore the file before you pay again.",
                ) from None
        return found

    def open(self, payer: Pubkey, uploader: str, network: str) -> list[Deposit]:
        """Those of this payer, uploader and network that are neither credited nor dead."""
        wanted = (str(payer), uploader, network, State.OPEN)
        return [found for found in self.all() if (found.payer, found.uploader, found.network, found.state) == wanted]

    def open_elsewhere(self, payer: Pubkey, uploader: str, network: str) -> list[Deposit]:
        """Those of this payer and uploader that are open under another name of the network, or on another one."""
        wanted = (str(payer), uploader, State.OPEN)
        return [
            found
            for found in self.all()
            if (found.payer, found.uploader, found.state) == wanted and found.network != network
        ]


@dataclass(frozen=True, slots=True)
class Funded:
    """What a call did: `resumed` are earlier deposits with their outcome, `paid` the new one, if any."""

    resumed: tuple[Deposit, ...]
    paid: Deposit | None


class Funding:
    """Pays one uploader from one wallet, on record under `home`; `sleep` does the waits between posts."""

    def __init__(
        self,
        client: Client,
        irys: Irys,
        key: Keypair,
        home: Path,
        *,
        say: Say = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._irys, self._key = client, irys, key
        self.deposits = Deposits(home / "deposits")
        self._say, self._sleep = say, sleep

    def open(self) -> list[Deposit]:
        """Earlier deposits to finish before anything is paid."""
        return self.deposits.open(self._key.pubkey(), self._irys.endpoints.uploader, self._network_name())

    def fund(self, lamports: int, address: Pubkey) -> Funded:
        """Finish what is open; if that credited nothing, pay `lamports` to the uploader's `address`.

        With 0 lamports nothing is paid. Raises InsufficientFunds, TransactionFailed or NetworkUnreachable; a
        recorded deposit stays recorded, and the next call continues with it.
        """
        with locked(self.deposits.folder / "lock", wait=_OTHERS_SECONDS):
            resumed = tuple(self._finish(deposit) for deposit in self.open())
            if lamports == 0 or any(deposit.state is State.CREDITED for deposit in resumed):
                return Funded(resumed, None)
            self._refuse_open_elsewhere()
            return Funded(resumed, self._finish(self._pay(lamports, address)))

    def _refuse_open_elsewhere(self) -> None:
        uploader = self._irys.endpoints.uploader
        for deposit in self.deposits.open_elsewhere(self._key.pubkey(), uploader, self._network_name()):
            raise ChainError(
                f"The transfer {deposit.signature} of {sol(deposit.lamports)} to this uploader is still open "
                f"on the network {deposit.network}.",
                f"Finish it first with `chain irys fund --network {deposit.network}`.",
            )

    def _pay(self, lamports: int, address: Pubkey) -> Deposit:
        payer = self._key.pubkey()
        deposit: Deposit | None = None

        def record(signature: Signature, last_valid: int) -> None:
            nonlocal deposit
            deposit = Deposit(
                str(signature),
                last_valid,
                lamports,
                str(payer),
                str(address),
                self._irys.endpoints.uploader,
                self._network_name(),
            )
            self.deposits.save(deposit)
            self._say(f"sending transfer {signature} (recorded)")

        step = transfer(TransferParams(from_pubkey=payer, to_pubkey=address, lamports=lamports))
        self._client.execute([step], self._key, before_send=record)
        if deposit is None:
            raise TransactionFailed("The transfer was sent without being recorded.", "This is a bug in this program.")
        return deposit

    def _finish(self, deposit: Deposit) -> Deposit:
        """Wait for finality and have the uploader credit it; the deposit with its outcome, recorded."""
        self._say(f"waiting for transfer {deposit.signature} to become final")
        signature = Signature.from_string(deposit.signature)
        try:
            self._client.network.confirm(signature, deposit.last_valid, timeout=FINALITY_SECONDS, final=True)
        except TransactionFailed as failure:
            self._say(f"the transfer failed: {failure.problem}")
            return self._became(deposit, State.DEAD)
        self._post(deposit)
        self._say(f"{deposit.uploader} credited {sol(deposit.lamports)} to {deposit.payer}")
        return self._became(deposit, State.CREDITED)

    def _became(self, deposit: Deposit, state: State) -> Deposit:
        deposit = replace(deposit, state=state)
        self.deposits.save(deposit)
        return deposit

    def _post(self, deposit: Deposit) -> None:
        """Post the transfer to the uploader until it is accepted: its node may see it later than ours."""
        for attempt in range(_POSTS):
            try:
                return self._irys.post_deposit(deposit.signature)
            except (InvalidData, NetworkUnreachable) as error:
                refusal: ChainError = error
            if attempt < _POSTS - 1:
                self._sleep(min(2.0**attempt, _LONGEST_WAIT))
        raise type(refusal)(
            f"The transfer {deposit.signature} of {sol(deposit.lamports)} is final, and the uploader does not "
            f"credit it yet: {refusal.problem}",
            "The transfer is recorded. Run `chain irys fund` without an amount to have it credited.",
        )

    def _network_name(self) -> str:
        return self._client.network.name


def needed(lamports: int) -> int:
    """Lamports that a wallet must hold to deposit `lamports`: the fee comes on top."""
    return lamports + FEE_PER_SIGNATURE
