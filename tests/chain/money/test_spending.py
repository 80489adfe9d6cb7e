"""Money: real money only where it was typed and capped, never more than the cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import AllocateParams, TransferParams, allocate, transfer
from solders.transaction import VersionedTransaction

from chain.connection.opening import Connection
from chain.errors import TransactionFailed
from chain.localnet.server import serve
from chain.money import spending
from chain.money.client import Client
from chain.money.spending import (
    MAINNET_GENESIS,
    Permitted,
    SpendingBudget,
    SpendingRefused,
    SpendingTerms,
    permitted,
    refusal,
)
from chain.network.base import Simulation
from chain.network.embedded import EmbeddedNetwork
from chain.program import PROGRAM_ID
from chain.program.addresses import Pdas, associated_token_account
from chain.program.errors import ScoreNotImproved
from chain.program.events import Bought
from chain.program.instructions import INSTRUCTIONS, AddVerifier, Buy, ClaimReview, Reject, Sell, Submit, instruction_of
from chain.program.tokens import create_associated_token_account
from chain.wallet import wallet
from tests import local
from tests.chain.commands.test_cli import chain, project_files, refused
from tests.chain.svm import digest

SOL = 10**9
_MAINNET = SpendingTerms(typed=True, real=True, cap=SOL, genesis=MAINNET_GENESIS)


_CURES = {
    "not named on the command line": "add --network NAME and a cap, for example --max-spend 0.05.",
    "without a cap": "Add --max-spend SOL, or set max_spend in a configuration file.",
    "another cluster": "Correct rpc_url, or use --network for the node's own network.",
    "under another name": "Use --network mainnet with --rpc-url for this node, and a cap",
}


@pytest.mark.parametrize(
    ("terms", "genesis", "words"),
    [
        (_MAINNET, MAINNET_GENESIS, None),
        (replace(_MAINNET, typed=False), MAINNET_GENESIS, "not named on the command line"),
        (replace(_MAINNET, cap=None), MAINNET_GENESIS, "without a cap"),
        (replace(_MAINNET, cap=0), MAINNET_GENESIS, None),
        (_MAINNET, "other", "another cluster"),
        (replace(_MAINNET, typed=False, genesis="fork"), "fork", "not named on the command line"),
        (
            SpendingTerms(typed=True, cap=SOL),
            MAINNET_GENESIS,
            "under another name",
        ),  # by its URL, or a name of one's own
        (SpendingTerms(), MAINNET_GENESIS, "under another name"),
        (SpendingTerms(), "local", None),
        (SpendingTerms(genesis="devnet"), "local", "another cluster"),
        (SpendingTerms(genesis="devnet"), "devnet", None),
    ],
)
def test_refusal(terms: SpendingTerms, genesis: str, words: str | None) -> None:
    found = refusal(terms, "NAME", genesis)
    assert (found is None) == (words is None)
    if found is not None and words is not None:
        assert words in found.problem
        assert "NAME" in found.problem
        assert _CURES[words] in found.cure


def test_a_budget() -> None:
    budget = SpendingBudget(SpendingTerms(cap=100))
    assert budget.reserve(60) == 60
    with pytest.raises(SpendingRefused, match=r"0\.000000041 SOL.*0\.00000004 SOL are left"):
        budget.reserve(41)
    budget.settle(60, 10)
    assert budget.spent == 10
    assert budget.reserve(-5) == 0  # a gain pays for nothing else
    budget.settle(budget.reserve(90), 0)
    assert budget.reserve(90) == 90
    assert SpendingBudget(SpendingTerms()).reserve(10**18) == 10**18


# --- on a ledger ---


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


def capped(connection: Connection, cap: int) -> Client:
    return Client(connection.network, budget=SpendingBudget(SpendingTerms(cap=cap)))


def test_a_cap_holds_over_transactions_and_counts_what_they_took(connection: Connection) -> None:
    miner, project = local.miner_of(connection), connection.client.project(0)
    key, network = miner.pubkey(), connection.network
    client, before = capped(connection, 20_000_000), network.balance(miner.pubkey())
    client.call(Buy(project.id, local.cost(0, 9)), miner)
    taken = before - network.balance(key)
    assert client.budget.spent == taken > local.cost(0, 9) + 2_000_000  # with a token account's rent
    landed = local.embedded_of(connection).transaction_count()
    with pytest.raises(SpendingRefused, match="Nothing was sent"):
        client.call(Buy(project.id, 19_000_000), miner)
    assert local.embedded_of(connection).transaction_count() == landed
    spent = client.budget.spent
    client.call(Sell(project.id, 9), miner)  # gains more than its fee
    assert client.budget.spent == spent + 5_000  # its fee is paid, and the gain pays for nothing else
    small = capped(connection, local.cost(0, 1) + 5_000)
    small.call(Buy(project.id, local.cost(0, 1)), miner)
    assert small.budget.spent == small.budget.terms.cap
    with pytest.raises(SpendingRefused):
        small.call(Buy(project.id, local.cost(1, 1)), miner)


def test_what_may_still_land_stays_counted(connection: Connection) -> None:
    proposal, verifier = local.propose(connection), local.verifier_of(connection)
    other = local.propose(connection)
    embedded = local.embedded_of(connection)
    rival = Client(embedded)
    for entry in (proposal, other):
        rival.call(ClaimReview(entry.id), verifier)
    project, metrics = rival.project(0), (digest("m"), digest("id"))

    def rush() -> None:
        rival.approve(verifier, other, project, verified_score=2_700_000, metrics=metrics)

    network = local.Watched(embedded, send=rush)
    client = Client(network, budget=SpendingBudget(SpendingTerms(cap=SOL)))
    with pytest.raises(ScoreNotImproved):
        client.approve(verifier, proposal, project, verified_score=2_600_000, metrics=metrics)
    assert client.budget.spent == 5_000  # it was handed over signed, and only the node says that it went no further
    open_ = Client(local.Watched(embedded, confirm=_interrupt), budget=SpendingBudget(SpendingTerms(cap=SOL)))
    with pytest.raises(KeyboardInterrupt):
        open_.call(Buy(project.id, 100_000), local.miner_of(connection))
    assert open_.budget.spent > 0  # not known: it stays reserved


def _interrupt() -> None:
    raise KeyboardInterrupt


# --- mainnet, played by a local node ---


@dataclass(frozen=True)
class Mainnet:
    """A node that a user file calls mainnet, and who pays there."""

    embedded: EmbeddedNetwork
    url: str
    home: Path
    key: Keypair
    file: Path

    def run(self, *arguments: object, network: str | None = "mainnet", **environment: str) -> Result:
        given = [] if network is None else ["--network", network]
        return chain(self.home, *arguments, *given, ARMLX_CONFIG=str(self.file), **environment)

    def balance(self) -> int:
        return self.embedded.balance(self.key.pubkey())


@pytest.fixture
def mainnet(tmp_path: Path) -> Iterator[Mainnet]:
    embedded = EmbeddedNetwork(local.home_with_project(tmp_path / "ledger"))
    key = wallet.new(tmp_path / "keys", "payer")
    embedded.airdrop(key.pubkey(), SOL)
    with serve(embedded, port=0).start() as server:
        file = tmp_path / "user.toml"
        file.write_text(
            f'[networks.mainnet]\nrpc_url = "{server.url}"\ngenesis = "{embedded.genesis_hash}"\n'
            f'irys_uploader = "http://127.0.0.1:9"\nkeypair = "{wallet.path_of(tmp_path / "keys", "payer")}"\n'
        )
        yield Mainnet(embedded, server.url, tmp_path / "home", key, file)
    embedded.close()


def test_mainnet_has_to_be_typed_and_capped(mainnet: Mainnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buy = ("token", "buy", "--lamports", local.cost(0, 2))
    # looking is free
    assert "TST" in mainnet.run("project", "list", network=None, ARMLX_NETWORK="mainnet").stdout
    # an environment or a file does not type it
    refused(
        mainnet.run(*buy, network=None, ARMLX_NETWORK="mainnet"), "not named on the command line", "--network mainnet"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "armlx.toml").write_text('network = "mainnet"\nmax_spend = 1\n')
    refused(mainnet.run(*buy, network=None), "not named on the command line")
    (tmp_path / "armlx.toml").unlink()
    refused(mainnet.run(*buy), "without a cap", "--max-spend")
    refused(mainnet.run(*buy, "--max-spend", "0.000001"), "of the cap of 0.000001 SOL", "Nothing was sent")
    assert mainnet.balance() == SOL
    done = mainnet.run(*buy, "--max-spend", "0.01")
    assert done.exit_code == 0, done.output
    assert SOL - 10_000_000 < mainnet.balance() < SOL
    # a configured cap is a cap
    mainnet.file.write_text(mainnet.file.read_text() + 'max_spend = "0.01"\n')
    assert mainnet.run(*buy).exit_code == 0


def test_mainnet_is_known_by_any_name(mainnet: Mainnet, monkeypatch: pytest.MonkeyPatch) -> None:
    buy = (
        "token",
        "buy",
        local.cost(0, 2),
        "--max-spend",
        "1",
        "--keypair",
        mainnet.home.parent / "keys/wallets/payer.json",
    )
    monkeypatch.setattr(spending, "MAINNET_GENESIS", str(mainnet.embedded.genesis_hash))
    refused(mainnet.run(*buy, network=mainnet.url), "under another name", "--network mainnet")
    mainnet.file.write_text(f'[networks.mine]\nrpc_url = "{mainnet.url}"\n')
    refused(mainnet.run(*buy, network="mine"), "under another name")
    # and a node of another cluster is not paid through
    refused(mainnet.run(*buy, "--rpc-url", mainnet.url, network="devnet"), "another cluster")
    assert mainnet.balance() == SOL


def test_nothing_is_uploaded_where_nothing_may_be_spent(mainnet: Mainnet, tmp_path: Path) -> None:
    create = ("project", "create", *project_files(tmp_path), "--name", "N", "--symbol", "S", "--yes")
    assert "without a cap" in mainnet.run(*create).stderr
    assert "127.0.0.1:9" in mainnet.run(*create, "--max-spend", "1").stderr  # the uploader, which is not there


def test_a_library_cannot_spend_on_mainnet_by_naming_it(mainnet: Mainnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMLX_CONFIG", str(mainnet.file))
    monkeypatch.setenv("ARMLX_MAX_SPEND", "1")
    with local.connect(mainnet.home, "mainnet") as connection:
        assert not connection.network.is_local
        with pytest.raises(SpendingRefused, match="not named on the command line"):
            connection.client.call(Buy(0, 5_000), connection.wallet(None, "miner"))


def test_a_failure_on_chain_costs_its_fee(connection: Connection) -> None:
    """Sent without preflight, as a cluster does with what changed since: the fee is what the cap loses."""
    embedded, verifier = local.embedded_of(connection), local.verifier_of(connection)
    proposal = local.propose(connection)
    client = Client(_Blind(embedded, connection.client, proposal.id), budget=SpendingBudget(SpendingTerms(cap=SOL)))  # type: ignore[arg-type]
    with pytest.raises(TransactionFailed):
        client.call(ClaimReview(proposal.id), verifier)
    assert client.budget.spent == 5_000
    done = Client(embedded).call(Buy(0, local.cost(4, 1)), verifier)
    assert done.receipt.paid > done.event(Bought).lamports_spent + done.receipt.fee - 1


class _Blind(local.Watched):
    """A node that checks nothing before it forwards, with a rival who is faster."""

    def __init__(self, embedded: EmbeddedNetwork, rival: Client, proposal: int) -> None:
        super().__init__(embedded)
        self._rival, self._proposal = rival, proposal

    def send(self, tx: object) -> object:  # type: ignore[override]
        from chain.connection.opening import AUTHORITY

        second = Keypair()
        embedded = self._network
        assert isinstance(embedded, EmbeddedNetwork)
        embedded.airdrop(second.pubkey(), SOL)
        authority = wallet.load(wallet.path_of(embedded.home, AUTHORITY))
        self._rival.call(AddVerifier(second.pubkey()), authority)
        self._rival.call(ClaimReview(self._rival.proposal(self._proposal).id), second)
        return embedded.submit(tx, preflight=False)  # type: ignore[arg-type]


# --- what the transaction permits, whatever the node says ---


class Lying(local.Watched):
    """A node whose simulations say that nothing leaves the wallet."""

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        honest = super().simulate(tx, watch=watch)
        same = {key: self._network.account(key) for key in watch}
        return replace(honest, accounts=same if honest.error is None else {})


def test_a_cap_bounds_what_the_transaction_permits_not_what_a_simulation_says(connection: Connection) -> None:
    """The purchase may take 1.2 SOL; a simulation says 0, and the cap is 0.001."""
    miner = local.stranger(connection, 2 * SOL)
    budget = SpendingBudget(SpendingTerms(cap=1_000_000))
    client = Client(Lying(connection.network), budget=budget)
    with pytest.raises(SpendingRefused, match="may take"):
        client.call(Buy(0, 1_200_000_000), miner)
    assert connection.network.balance(miner.pubkey()) == 2 * SOL
    assert budget.spent == 0


def test_a_sale_just_before_does_not_take_more_than_the_cap(connection: Connection) -> None:
    """The next token costs more than is left of what is offered, until somebody's sale makes it cheaper."""
    whale, miner, project = local.stranger(connection), local.stranger(connection), connection.client.project(0)
    rival = Client(connection.network)
    rival.call(Buy(0, local.cost(0, 300)), whale)
    offered = local.cost(300, 9) + local.BASE_PRICE + 300 * local.SLOPE
    now = local.cost(300, 9) + 3_000_000  # what it takes at present, with rent and fee
    network = local.Watched(connection.network, send=lambda: rival.call(Sell(0, 300), whale))
    client = Client(network, budget=SpendingBudget(SpendingTerms(cap=now)))
    before = connection.network.balance(miner.pubkey())
    client.call(Buy(project.id, offered - 1), miner)
    assert before - connection.network.balance(miner.pubkey()) <= client.budget.spent <= now


def test_the_guard_fails_a_transaction_that_takes_more_than_was_set_aside(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that takes more than its interface says, behind a node that hides it."""
    miner = local.stranger(connection)
    monkeypatch.setattr(Client, "_permitted", lambda self, steps, payer: 0)
    for network in (Lying(connection.network), Blind(connection.network)):
        client = Client(network, budget=SpendingBudget(SpendingTerms(cap=10**8)))
        before = connection.network.balance(miner.pubkey())
        with pytest.raises(SpendingRefused, match=r"More than the 0\.000005 SOL"):
            client.call(Buy(0, local.cost(0, 5)), miner)
        assert before - connection.network.balance(miner.pubkey()) in (0, 5_000)
        assert client.budget.spent in (0, 5_000)


class Blind(Lying):
    """Its simulations succeed, and it sends without looking."""

    def simulate(self, tx: VersionedTransaction, *, watch: Sequence[Pubkey] = ()) -> Simulation:
        found = super().simulate(tx, watch=watch)
        accounts = {key: self._network.account(key) for key in watch}
        return replace(found, error=None, program_error=None, accounts=accounts)

    def send(self, tx: VersionedTransaction) -> Signature:
        assert isinstance(self._network, EmbeddedNetwork)
        return self._network.submit(tx, preflight=False)


KEY, STEP = Pubkey(bytes([7] * 32)), Keypair().pubkey()


@pytest.mark.parametrize(
    ("args", "ids", "lamports", "created"),
    [
        (Buy(0, 77), {}, 77, ["buyer_token_account"]),
        (Sell(0, 5), {}, 0, []),
        (AddVerifier(KEY), {}, 0, ["verifier_entry"]),
        (
            Submit(0, bytes(32), bytes(32), bytes(32), bytes(32), 1, 2, KEY),
            {"proposal_id": 3},
            0,
            ["proposal", "proposal_escrow"],
        ),
        (ClaimReview(3), {}, 0, []),
        (Reject(3, bytes(32), bytes(32)), {"project_id": 0}, 0, ["claimable"]),
    ],
)
def test_what_an_instruction_permits(args: Any, ids: dict[str, int], lamports: int, created: list[str]) -> None:
    step = instruction_of(PROGRAM_ID, args, KEY, **ids)  # type: ignore[arg-type]
    kind = INSTRUCTIONS[type(args)]
    addresses = {step.accounts[kind.index(name)].pubkey: spending.SPACES[name] for name in created}
    assert permitted([step], KEY, PROGRAM_ID) == Permitted(lamports, addresses)
    assert permitted([step], KEY, STEP) == Permitted(0, {})  # another program's


def test_what_other_instructions_permit() -> None:
    away = transfer(TransferParams(from_pubkey=KEY, to_pubkey=STEP, lamports=9))
    home = transfer(TransferParams(from_pubkey=KEY, to_pubkey=KEY, lamports=9))
    mint = Pdas(PROGRAM_ID).mint(0)
    account = create_associated_token_account(KEY, STEP, mint)
    found = permitted([away, home, account], KEY, PROGRAM_ID)
    assert found == Permitted(9, {associated_token_account(STEP, mint): 165})


def test_only_a_transfer_of_the_system_program_moves_lamports() -> None:
    """Allocating is as long as a transfer, and is not read as one."""
    space = allocate(AllocateParams(pubkey=KEY, space=9))
    assert len(bytes(space.data)) == len(
        bytes(transfer(TransferParams(from_pubkey=KEY, to_pubkey=STEP, lamports=9)).data)
    )
    assert permitted([space], KEY, PROGRAM_ID) == Permitted(0, {})


def test_a_guard_keeps_what_there_is_to_keep() -> None:
    assert spending.guard(KEY, 0) == []
    (kept,) = spending.guard(KEY, 1)
    assert kept == transfer(TransferParams(from_pubkey=KEY, to_pubkey=KEY, lamports=1))


def test_every_account_that_is_made_has_its_size() -> None:
    assert {slot.name for kind in INSTRUCTIONS.values() for slot in kind.accounts if slot.created} == set(
        spending.SPACES
    )
    assert all(not kind.pays or kind.pays in [f.name for f in fields(kind.args)] for kind in INSTRUCTIONS.values())
