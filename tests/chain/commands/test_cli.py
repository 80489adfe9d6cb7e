"""The `chain` command: every subcommand on a real ledger, and bad input as one clear line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain.commands.main import main
from chain.errors import NetworkUnreachable
from chain.localnet.server import serve
from chain.network import rpc
from chain.network.embedded import EmbeddedNetwork
from chain.program.accounts import ProposalStatus
from chain.program.instructions import ClaimReview
from chain.wallet import wallet
from tests import local
from trainer.project import bundle


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with project 0 and two proposals; for commands that only look."""
    home = local.home_with_project(tmp_path_factory.mktemp("shared"))
    with local.connect(home) as connection:
        local.propose(connection)
        local.propose(connection)
    return home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return local.home_with_project(tmp_path / "home")


def chain(home: Path | None, *arguments: object, **environment: str | None) -> Result:
    given = [str(argument) for argument in arguments]
    if home is not None:
        given += ["--home", str(home)]
    variables = {"ARMLX_NETWORK": None, "ARMLX_HOME": None, "ARMLX_IRYS": None, **environment}
    return CliRunner().invoke(main, given, env=variables)


def ask(home: Path, *arguments: object) -> Any:
    """The JSON answer of a command that must succeed; stdout holds nothing else."""
    result = chain(home, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result, *words: str, code: int = 1) -> None:
    """One line on stderr that says these words; nothing on stdout, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    if code == 1:
        assert len(lines) == 1, lines
        assert lines[0].startswith("Error: ")
        assert lines[0].endswith(".")
    for word in words:
        assert word in lines[-1]


# --- what each command answers ---


def test_project_list_and_show(shared: Path) -> None:
    (project,) = ask(shared, "project", "list")
    assert (project["id"], project["token_symbol"], project["baseline_aggregate_score"]) == (0, "TST", 2_500_000)
    shown = ask(shared, "project", "show", 0)
    assert {key: shown[key] for key in ("metric", "convention", "baseline", "best", "raw_gain", "delta_percent")} == {
        "metric": "val_bpb",
        "convention": "reflected",
        "baseline": "2.500000",
        "best": "2.500000",
        "raw_gain": "0.000000",
        "delta_percent": "0.00",
    }
    supply = 2 * local.STAKE
    assert (shown["supply"], shown["next_price_lamports"]) == (supply, local.BASE_PRICE + local.SLOPE * supply)
    assert (shown["miner_pool_minted"], shown["miner_pool_cap"]) == (0, 1_000)
    assert [entry["id"] for entry in shown["proposals"]] == [0, 1]
    text = chain(shared, "project", "show", 0)
    assert text.exit_code == 0
    for words in (
        "baseline val_bpb   2.500000",
        "delta              +0.00 %",
        "none yet",
        "0 of 1,000 minted",
        "proposals (2)",
    ):
        assert words in text.stdout
    assert "TST" in chain(shared, "project", "list").stdout


def test_a_project_whose_artifacts_are_gone_shows_its_scores(home: Path) -> None:
    import shutil

    shutil.rmtree(home / "irys")
    shutil.rmtree(home / "cache", ignore_errors=True)
    shown = ask(home, "project", "show", 0)
    assert (shown["convention"], shown["best"], shown["supply"]) == (None, None, 0)
    text = chain(home, "project", "show", 0).stdout
    assert "baseline 2,500,000, best 2,500,000" in text


def test_proposal_list_and_show(shared: Path) -> None:
    listed = ask(shared, "proposal", "list", "--project", 0)
    assert [(p["id"], p["status"], p["stake"]) for p in listed] == [
        (0, "pending", local.STAKE),
        (1, "pending", local.STAKE),
    ]
    shown = ask(shared, "proposal", "show", 1)
    assert listed[1].items() <= shown.items()
    assert (shown["metric"], shown["claimed_metric"]) == ("val_bpb", "2.400000")
    assert shown["claimed_aggregate_score"] == 2_600_000
    assert bytes.fromhex(shown["code_hash"])
    assert len(shown["code_irys_id"]) in (43, 44)
    text = chain(shared, "proposal", "show", 1).stdout
    assert "claimed aggregate score" in text
    assert "pending" in chain(shared, "proposal", "list").stdout


def test_wallets(home: Path) -> None:
    made = ask(home, "wallet", "new", "savings")
    assert oct(os.stat(made["file"]).st_mode & 0o777) == "0o600"
    assert made["address"] == str(wallet.load(Path(made["file"])).pubkey())
    assert ask(home, "wallet", "show", "savings") == [
        {"name": "savings", "address": made["address"], "kind": "plain", "lamports": 0}
    ]
    given = ask(home, "wallet", "airdrop", "savings", 1.5)
    assert (given["address"], given["lamports"]) == (made["address"], 1_500_000_000)
    rows = {row["name"]: row["lamports"] for row in ask(home, "wallet", "show")}
    assert rows.keys() == {"authority", "miner", "verifier", "savings"}
    assert "1.500000000 SOL" in chain(home, "wallet", "show", "savings").stdout


def test_tokens(home: Path) -> None:
    bought = ask(home, "token", "buy", "--lamports", local.cost(0, 3))
    assert bought == {"tokens": 3, "lamports": local.cost(0, 3)}
    held = ask(home, "token", "balance")
    assert (held["tokens"], held["claimable"]) == (3, 0)
    assert held["address"] == str(wallet.load(wallet.path_of(home, "miner")).pubkey())
    assert ask(home, "token", "sell", 2) == {"tokens": 2, "lamports": local.cost(1, 2)}
    assert "holds 1 TST" in chain(home, "token", "balance").stdout


def test_verifiers(home: Path) -> None:
    key = Keypair().pubkey()
    added = ask(home, "verifier", "add", key)
    assert (added["verifier"], added["registered"]) == (str(key), True)
    refused(chain(home, "verifier", "add", key), "already registered")
    assert ask(home, "verifier", "remove", key)["registered"] is False
    refused(chain(home, "verifier", "remove", key), "not registered")
    ask(home, "wallet", "new", "second")
    assert ask(home, "verifier", "add", "second")["registered"]
    refused(chain(home, "verifier", "add", Keypair().pubkey(), "--keypair", "miner"), "not the authority")


def test_project_create(home: Path, tmp_path: Path) -> None:
    arguments = project_files(tmp_path)
    made = ask(
        home, "project", "create", *arguments, "--baseline", "2.5", "--name", "Mine", "--symbol", "ME", "--slope", 7
    )
    assert made["project"] == 1
    shown = ask(home, "project", "show", 1)
    assert (shown["baseline"], shown["convention"], shown["project"]["slope"]) == ("2.500000", "reflected", 7)
    assert shown["project"]["mint"] == made["mint"]
    refused(
        chain(home, "project", "create", *arguments, "--baseline", "x", "--name", "M", "--symbol", "M"),
        "--baseline",
        code=2,
    )
    for number in ("nan", "1e30"):
        create = chain(home, "project", "create", *arguments, "--baseline", number, "--name", "M", "--symbol", "M")
        refused(create, "score")
    long = chain(home, "project", "create", *arguments, "--baseline", "2", "--name", "M" * 40, "--symbol", "M")
    refused(long)
    assert len(ask(home, "project", "list")) == 2


def project_files(folder: Path) -> list[str]:
    made = local.artifacts()
    files = {
        "protocol": made.protocol,
        "snapshot": bundle.pack(local.SMOKE.files),
        "benchmark": made.benchmark,
        "metrics": made.baseline_metrics,
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [part for name in files for part in (f"--{name}", str(folder / name))]


def test_a_new_home_answers_too(tmp_path: Path) -> None:
    assert ask(tmp_path / "deep" / "home", "project", "list") == []
    assert "no projects" in chain(tmp_path / "deep" / "home", "project", "list").stdout
    assert chain(None, "project", "list", ARMLX_HOME=str(tmp_path / "other")).exit_code == 0
    assert (tmp_path / "other" / "ledger.sqlite").exists()


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["project", "show", 7], "There is no project 7"),
        (["proposal", "show", 99], "There is no proposal 99"),
        (["proposal", "list", "--project", 7], "There is no project 7"),
        (["token", "buy", "--lamports", 1000, "--project", 7], "There is no project 7"),
        (["token", "buy", "--lamports", 1], "price"),
        (["token", "sell", 10**12], ""),
        (["wallet", "show", "nobody"], "There is no wallet file"),
        (["wallet", "new", "miner"], "already a wallet"),
        (["wallet", "new", "../escape"], "up to 64 letters"),
        (["wallet", "airdrop", "nobody", 1], "There is no wallet file"),
        (["token", "buy", "--lamports", 1000, "--keypair", "nobody"], "There is no wallet file"),
        (["token", "buy", "--lamports", 1000, "--keypair", "/nonexistent/key.json"], "There is no wallet file"),
        (["verifier", "add", "not-an-address"], "There is no wallet file"),
        (["project", "list", "--network", "moonnet"], "no network named 'moonnet'"),
        (["project", "list", "--network", "http://127.0.0.1:99999"], "not a usable URL"),
    ],
)
def test_bad_input_is_one_line(shared: Path, arguments: list[object], words: str) -> None:
    refused(chain(shared, *arguments), words)
    refused(chain(shared, *arguments, "--json"), words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["project", "show"],
        ["project", "show", "one"],
        ["project", "show", "-1"],
        ["project", "create"],
        ["token", "buy", "--lamports", 0],
        ["token", "buy", "ten"],
        ["wallet", "airdrop", "miner", 0],
        ["localnet", "--port", 70000],
        ["proposal", "list", "--wrong"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_two(shared: Path, arguments: list[object]) -> None:
    refused(chain(shared, *arguments), code=2)


def test_a_deposit_that_nobody_agreed_to_is_not_sent(home: Path) -> None:
    done = chain(home, "irys", "fund", "0.01")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("Error: Cancelled. Nothing was sent. Agree when asked, or add --yes.\n")


def test_a_misspelt_command_is_answered_with_the_one_like_it(shared: Path) -> None:
    """Also where it is only imported once it is asked for."""
    refused(chain(shared, "wallett", "show"), "Did you mean", "'wallet'", code=2)


def test_wallets_that_are_not_to_be_used(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[1, 2, 3]")
    broken.chmod(0o600)
    refused(chain(home, "token", "buy", "--lamports", 10_000, "--keypair", broken), "not a Solana keypair")
    path = wallet.path_of(home, "miner")
    path.chmod(0o644)
    result = chain(home, "token", "buy", "--lamports", 10_000, "--keypair", "miner")
    refused(result, "0644", "chmod 600")
    assert path.read_text()[1:40] not in result.output


def test_a_wallet_without_funds(home: Path) -> None:
    ask(home, "wallet", "new", "poor")
    refused(chain(home, "token", "buy", "--lamports", 10_000, "--keypair", "poor"), "cannot pay", "airdrop")


def test_a_home_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(chain(tmp_path / "file" / "home", "project", "list"), "cannot be created", "--home")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ledger.sqlite").write_bytes(b"not a database at all" * 50)
    refused(chain(tmp_path / "home", "project", "list"), "not a ledger")


@contextmanager
def listening() -> Iterator[int]:
    """A port that somebody else has, and that answers nothing."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_a_port_in_use(home: Path) -> None:
    with listening() as port:
        refused(chain(home, "localnet", "--port", port, "--irys-port", 0), str(port))
        refused(chain(home, "localnet", "--port", 0, "--irys-port", port), str(port))
    # nothing is left held
    assert ask(home, "project", "list")


def test_an_rpc_that_does_not_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = rpc.RpcNetwork.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "call_seconds", 1.0)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: the connection is refused
        closed = held.getsockname()[1]
        refused(chain(home, "project", "show", 0, "--network", f"http://127.0.0.1:{closed}"), f"127.0.0.1:{closed}")
    with listening() as silent:
        refused(chain(home, "project", "show", 0, "--network", f"http://127.0.0.1:{silent}"), f"127.0.0.1:{silent}")


def test_over_http_it_is_the_same_chain(home: Path) -> None:
    embedded = EmbeddedNetwork(home)
    with serve(embedded, port=0).start() as server:
        over = ["--network", server.url]
        listed = ask(home, "project", "list", *over)
        assert listed == ask(home, "project", "list")
        bought = ask(home, "token", "buy", "--lamports", local.cost(0, 2), *over)
        assert bought["tokens"] == 2
        assert ask(home, "token", "balance")["tokens"] == 2
        refused(chain(home, "proposal", "show", 9, *over), "There is no proposal 9", server.url)
        refused(chain(home, "token", "sell", 9, *over))
    embedded.close()


def test_a_status_is_shown_by_name(home: Path) -> None:
    with local.connect(home) as connection:
        proposal = local.propose(connection)
        connection.client.call(ClaimReview(proposal.id), local.verifier_of(connection))
        assert connection.client.proposal(0).status is ProposalStatus.IN_REVIEW
    assert ask(home, "proposal", "show", 0)["status"] == "in_review"
    assert "in review" in chain(home, "proposal", "list").stdout


def test_selling_more_than_one_holds(home: Path) -> None:
    refused(chain(home, "token", "sell", 1), "You hold 0 TST, so there is nothing to sell.")
    ask(home, "token", "buy", "--lamports", local.cost(0, 2))
    refused(chain(home, "token", "sell", 3), "You hold 2 TST, so you cannot sell 3.")
    refused(chain(home, "token", "buy", "100000"), " holds ", " SOL; this needs at least 99,999.")


def test_an_amount_is_in_sol_or_exact(home: Path) -> None:
    assert ask(home, "token", "buy", "0.000003030", "--slippage", 5)["tokens"] == 3
    refused(chain(home, "token", "buy", "0.1", "--lamports", 5), "either in SOL or as --lamports", code=2)
    refused(chain(home, "token", "buy"), "Give an amount in SOL", code=2)
    for text in ("0", "-1", "nan", "0.0000000001", "1e400", "lots"):
        refused(chain(home, "token", "buy", "--", text), "is not an amount in SOL (for example 0.05)", code=2)


@pytest.mark.parametrize(
    "setting",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:9"},
        {"ALL_PROXY": "socks://127.0.0.1:9"},
        {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,[::1]"},
        {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "fd00:1:2::/64"},
        {"SSL_CERT_FILE": "/nonexistent.pem"},
    ],
    ids=str,
)
def test_settings_of_the_network_are_nothing_to_the_embedded_one(
    setting: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ended in a traceback; elsewhere each is one line with a cure."""
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    home = local.home_with_project(tmp_path / "home")
    ours = {**os.environ, **setting, "HOME": str(tmp_path)}

    command = [str(Path(sys.executable).parent / "chain"), "project", "show", "0", "--network", "embedded"]
    shown = subprocess.run(
        [*command, "--home", str(home)], env=ours, capture_output=True, text=True, timeout=120, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "TST" in shown.stdout
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    rpc.RpcNetwork("http://127.0.0.1:8899", name="here").close()
    with pytest.raises(NetworkUnreachable) as refusal:
        rpc.RpcNetwork("https://solana.invalid", name="far", call_seconds=0.5).balance(Pubkey.default())
    assert refusal.value.cure
    assert "\n" not in refusal.value.message
