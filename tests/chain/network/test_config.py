"""Configuration: which value counts, where it comes from, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.connection import config
from chain.connection.config import Layer, Misconfigured, parse_file, parse_solana, resolve
from chain.errors import ChainError
from chain.money.spending import MAINNET_GENESIS
from chain.network.base import LAMPORTS_PER_SOL
from chain.program import PROGRAM_ID
from tests import local
from tests.chain.commands.test_cli import ask, chain, refused

SHIPPED = config.shipped()
SOLANA = {
    "json_rpc_url": "https://devnet.provider.example/?key=1",
    "keypair_path": "/k.json",
    "commitment": "processed",
}


def settings(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    *layers: Layer,
    solana: Mapping[str, str] | None = None,
) -> config.Settings:
    return resolve(flags or {}, environment or {}, layers, SHIPPED, lambda: solana or {})


# --- which value counts ---

# From the one that counts most to the one that counts least; each is a fee of its own.
_SOURCES = ["--priority-fee", "ARMLX_PRIORITY_FEE", "P, networks.devnet", "P", "U, networks.devnet", "U", "default"]


@pytest.mark.parametrize("first", range(len(_SOURCES)))
def test_precedence(first: int) -> None:
    """Every source from the n-th on gives a value: the n-th one counts."""
    given = {name: number for number, name in enumerate(_SOURCES) if number >= first}
    layers = []
    for origin in ("P", "U"):
        top = {"priority_fee": given[origin]} if origin in given else {}
        own = {"priority_fee": number} if (number := given.get(f"{origin}, networks.devnet")) else {}
        layers.append(Layer(origin, top, {"devnet": own, "localnet": {"priority_fee": 99}}))
    flags: dict[str, object] = {"network": "devnet", "priority_fee": "0" if 0 in given.values() else None}
    environment = {"ARMLX_PRIORITY_FEE": "1"} if 1 in given.values() else {}
    found = settings(flags, environment, *layers).found["priority_fee"]
    assert found == (0 if _SOURCES[first] == "default" else first, _SOURCES[first])


_P = Layer("P", {"network": "localnet"}, {})
_U = Layer("U", {"network": "mainnet"}, {})


@pytest.mark.parametrize(
    ("flags", "environment", "layers", "network", "origin", "typed"),
    [
        ({"network": "mainnet"}, {"ARMLX_NETWORK": "devnet"}, (_P, _U), "mainnet", "--network", True),
        ({}, {"ARMLX_NETWORK": "mainnet"}, (_P, _U), "mainnet", "ARMLX_NETWORK", False),
        ({}, {}, (_P, _U), "localnet", "P", False),
        ({}, {}, (_U,), "mainnet", "U", False),
        ({}, {}, (), "embedded", "default", False),
        ({}, {"ARMLX_NETWORK": ""}, (), "embedded", "default", False),
        ({"network": "local"}, {}, (_P,), "embedded", "--network", True),
        ({"network": "http://127.0.0.1:1"}, {}, (_P,), "http://127.0.0.1:1", "--network", True),
    ],
)
def test_the_network(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    layers: tuple[Layer, ...],
    network: str,
    origin: str,
    typed: bool,
) -> None:
    found = settings(flags, environment, *layers)
    assert (found.network, found.found["network"].origin, found.typed) == (network, origin, typed)


def test_a_program_that_names_mainnet_has_not_typed_it() -> None:
    found = resolve({}, {}, (), SHIPPED, dict, asked="mainnet")
    assert (found.network, found.typed, found["real_money"]) == ("mainnet", False, True)
    assert not config.load({}, asked="mainnet").typed


def test_the_networks_that_come_along() -> None:
    assert sorted(SHIPPED) == ["devnet", "embedded", "localnet", "mainnet"]
    assert {entry["program_id"] for entry in SHIPPED.values()} == {str(PROGRAM_ID)}
    assert [name for name in SHIPPED if SHIPPED[name].get("real_money")] == ["mainnet"]
    assert [name for name in SHIPPED if SHIPPED[name]["is_local"]] == ["embedded", "localnet"]
    assert SHIPPED["mainnet"]["genesis"] == MAINNET_GENESIS != SHIPPED["devnet"]["genesis"]
    assert "max_spend" not in SHIPPED["mainnet"]


@pytest.mark.parametrize(
    ("network", "solana", "rpc", "keypair", "commitment"),
    [
        ("devnet", SOLANA, SOLANA["json_rpc_url"], "/k.json", "processed"),
        ("mainnet", SOLANA, SHIPPED["mainnet"]["rpc_url"], "/k.json", "confirmed"),  # its node is of another network
        ("devnet", SOLANA | {"json_rpc_url": "https://notdevnet.example"}, SHIPPED["devnet"]["rpc_url"], "/k.json", ""),
        ("embedded", SOLANA, "", None, "confirmed"),
        ("localnet", SOLANA, SHIPPED["localnet"]["rpc_url"], None, "confirmed"),
        ("devnet", {}, SHIPPED["devnet"]["rpc_url"], None, "confirmed"),
        ("http://host.example:1", SOLANA, "http://host.example:1", "/k.json", "confirmed"),
    ],
)
def test_what_the_solana_command_line_supplies(
    network: str, solana: Mapping[str, str], rpc: str, keypair: str | None, commitment: str
) -> None:
    found = settings({"network": network}, solana=solana)
    assert (found["rpc_url"], found["keypair"]) == (rpc, keypair)
    assert found["commitment"] == (commitment or "confirmed")
    if keypair:
        assert found.found["keypair"].origin == config.SOLANA
    # anything else goes before it
    top = Layer("U", {"keypair": "mine"}, {"devnet": {"rpc_url": "https://own.example"}})
    found = settings({"network": "devnet"}, {}, top, solana=SOLANA)
    assert (found["rpc_url"], found["keypair"]) == ("https://own.example", "mine")


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("netwrok = 'devnet'", "unknown setting 'netwrok'. Did you mean 'network'? Known settings: "),
        ("rpc_url = 'https://a.example'", "'rpc_url'"),  # belongs to one network
        ("[networks.mainnet]\nreal_money = false", "'real_money'"),
        ("[networks.mainnet]\nis_local = true", "'is_local'"),
        ("[networks.devnet]\nnetwork = 'mainnet'", "'network'"),
        ("[networks.local]\nmax_spend = 1", "not a valid network name"),
        ("[networks.'a b']\nmax_spend = 1", "not a valid network name"),
        ("networks = 3", "must be tables"),
        ("[networks]\ndevnet = 3", "must be tables"),
        ("network = ", "not valid TOML"),
        ("commitment = 'soon'", "processed, confirmed, finalized"),
        ("priority_fee = -1", "micro-lamports"),
        ("priority_fee = true", "micro-lamports"),
        ("priority_fee = 1e30", "micro-lamports"),
        ("max_spend = 'much'", "an amount in SOL"),
        ("max_spend = nan", "an amount in SOL"),
        ("max_spend = -1", "an amount in SOL"),
        ("max_spend = 0.0000000001", "an amount in SOL"),
        ("max_spend = '1e400000'", "an amount in SOL"),
        ("[networks.devnet]\nrpc_url = 'ftp://a'", "http(s) URL"),
        ("[networks.devnet]\nirys_gateways = []", "one to eight"),
        ("[networks.devnet]\nprogram_id = 'x'", "base58"),
        ("keypair = ''", "expected text"),
    ],
)
def test_a_file_that_does_not_fit(text: str, words: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        parse_file(text.encode(), "armlx.toml")
    assert words in refusal.value.message
    assert "armlx.toml" in refusal.value.message


@pytest.mark.parametrize("text", ["0.05", 1, "1", "0", "0.000000001"])
def test_sol(text: object) -> None:
    amount = settings({"network": "devnet", "max_spend": text})["max_spend"]
    assert amount == float(str(text)) * LAMPORTS_PER_SOL


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode(errors="replace")))
def test_any_bytes_are_a_file_or_a_refusal(data: bytes) -> None:
    for parse in (lambda data: parse_file(data, "f"), parse_solana, lambda data: config.parse_network(data, "f")):
        try:
            parse(data)
        except Misconfigured as refusal:
            assert refusal.problem  # noqa: PT017


def test_a_network_that_is_not_there_names_those_that_are() -> None:
    own = Layer("P", {}, {"mine": {"rpc_url": "http://127.0.0.1:5"}})
    with pytest.raises(ChainError) as refusal:
        settings({"network": "moonnet"}, {}, own)
    assert "devnet, embedded, localnet, mainnet, mine" in refusal.value.cure
    assert settings({"network": "mine"}, {}, own)["rpc_url"] == "http://127.0.0.1:5"
    with pytest.raises(Misconfigured, match="no rpc_url"):
        settings({"network": "mine"}, {}, Layer("P", {}, {"mine": {"max_spend": 1}}))


# --- the Solana command line's file ---

_CONFIG = b"""---
# made by `solana config set`
json_rpc_url: https://api.devnet.solana.com
websocket_url: ''
keypair_path: "/home/me/.config/solana/id.json"
address_labels:
  '11111111111111111111111111111111': System Program
commitment: confirmed # the default
"""


def test_the_solana_file_as_it_is_written() -> None:
    assert parse_solana(_CONFIG) == {
        "json_rpc_url": "https://api.devnet.solana.com",
        "websocket_url": "",
        "keypair_path": "/home/me/.config/solana/id.json",
        "address_labels": "",
        "commitment": "confirmed",
    }


@pytest.mark.parametrize(
    "line", ["json_rpc_url: [a]", "a: &x y", "a: |", "a: !!str b", "? a", "- a", "a: 1\na: 2", "a: 'b' c", "{a: b}"]
)
def test_other_yaml_is_refused(line: str) -> None:
    with pytest.raises(Misconfigured, match="name: text"):
        parse_solana(line.encode())
    with pytest.raises(Misconfigured, match="UTF-8"):
        parse_solana(b"a: \xff")


# --- on the command line ---


def test_show_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "user.toml"
    user.write_text('max_spend = "0.2"\n[networks.devnet]\nrpc_url = "https://d.example/?api-key=secret"\n')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "armlx.toml").write_text('network = "devnet"\ncommitment = "finalized"\n')
    over: Any = {"ARMLX_CONFIG": str(user), "ARMLX_PRIORITY_FEE": "auto", "HOME": str(tmp_path)}
    # nothing else has to be given, and nothing is asked of the network
    shown = chain(
        tmp_path / "home", "proposal", "show", "--show-config", "--json", "--rpc-url", "https://e.example", **over
    )
    found = json.loads(shown.stdout)
    assert found["network"] == {"value": "devnet", "origin": "armlx.toml"}
    assert found["commitment"] == {"value": "finalized", "origin": "armlx.toml"}
    assert found["rpc_url"] == {"value": "https://e.example", "origin": "--rpc-url"}
    assert found["max_spend"] == {"value": "0.2", "origin": str(user)}
    assert found["priority_fee"] == {"value": "auto", "origin": "ARMLX_PRIORITY_FEE"}
    assert found["home"] == {"value": str(tmp_path / "home"), "origin": "--home"}
    assert found["program_id"]["origin"] == "default of devnet"
    text = chain(tmp_path / "home", "project", "list", "--show-config", **over).stdout
    assert "secret" not in text
    assert "https://d.example/..." in text
    assert len(text.splitlines()) == len(found)
    refused(chain(tmp_path, "project", "list", ARMLX_CONFIG=str(tmp_path)), "Cannot read")
    user.write_text("x")
    refused(chain(tmp_path, "project", "list", **over), str(user))


def test_a_file_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local.home_with_project(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "armlx.toml").write_text(f'home = "{tmp_path / "elsewhere"}"\n')
    result = chain(None, "project", "list", "--json")
    assert [entry["id"] for entry in json.loads(result.stdout)] == [0]
    assert ask(tmp_path / "other", "project", "list") == []


def test_the_solana_keypair_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network that is not local: flag, then configuration, then the home's wallet, then Solana's."""
    from chain.wallet import wallet

    folder = tmp_path / ".config" / "solana"
    monkeypatch.setenv("HOME", str(tmp_path))
    wallet.save(folder / "id.json", theirs := wallet.new(tmp_path / "x", "theirs"))
    (folder / "cli").mkdir()
    (folder / "cli" / "config.yml").write_text(
        f"json_rpc_url: https://devnet.example\nkeypair_path: {folder}/id.json\n"
    )
    home = tmp_path / "home"
    with local.connect(home, "devnet") as connection:
        assert connection.settings["rpc_url"] == "https://devnet.example"
        assert connection.wallet(None, "miner") == theirs
        ours = wallet.new(home, "miner")
        assert connection.wallet(None, "miner") == ours
        monkeypatch.setenv("ARMLX_KEYPAIR", str(folder / "id.json"))
    with local.connect(home, "devnet") as connection:
        assert connection.wallet(None, "miner") == theirs
        assert connection.wallet("miner", "miner") == ours


def test_a_flag_is_named_once() -> None:
    with pytest.raises(config.Misconfigured, match=r"^--max-spend 'lots' is invalid: expected an amount in SOL"):
        settings({"max_spend": "lots"})
    with pytest.raises(config.Misconfigured, match=r"^armlx.toml: network = 5 is invalid: expected text"):
        config.parse_file(b"network = 5", "armlx.toml")  # as it is written, not as text
    with pytest.raises(config.Misconfigured, match=r"^ARMLX_MAX_SPEND: max_spend = 'lots' is invalid: expected an"):
        settings({}, {"ARMLX_MAX_SPEND": "lots"})


@pytest.mark.parametrize("name", ["notify_command", "notify_webhook", "notify_desktop"])
def test_a_folders_file_runs_no_program_and_calls_nobody(name: str) -> None:
    line = f'{name} = "https://hooks.example/x"\n'.encode() if name != "notify_desktop" else b"notify_desktop = true\n"
    assert config.parse_file(line, "config.toml").top[name]
    with pytest.raises(config.Misconfigured, match=f"ARMLX_{name.upper()}"):
        config.parse_file(line, config.PROJECT_FILE, own=False)


def test_notifications_are_off_and_their_addresses_are_not_shown() -> None:
    off = settings()
    assert [off[f"notify_{name}"] for name in ("command", "webhook", "desktop")] == [None, None, False]
    secret = {
        "ARMLX_NOTIFY_WEBHOOK": "https://hooks.slack.example/services/s3cr3t",
        "ARMLX_NOTIFY_COMMAND": "tell --token s3cr3t",
        "ARMLX_NOTIFY_DESKTOP": "1",
    }
    found = settings({}, secret)
    assert found["notify_desktop"] is True
    assert "hooks.slack.example" in found.text()
    assert "s3cr3t" not in found.text() + json.dumps(found.as_json())
    with pytest.raises(config.Misconfigured) as refused:
        settings({}, {"ARMLX_NOTIFY_WEBHOOK": "hooks.example/s3cr3t"})
    assert "s3cr3t" not in str(refused.value)
