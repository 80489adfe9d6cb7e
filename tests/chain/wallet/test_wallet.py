"""Wallet files: the standard form, private, whole, never overwritten."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.errors import ChainError, InvalidData, NotFound
from chain.wallet import wallet

SECRET = list(bytes(Keypair.from_seed(bytes(range(32)))))


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_new_wallet_is_a_private_standard_file(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keypair = wallet.new(tmp_path, "miner")
    finally:
        os.umask(old)
    path = wallet.path_of(tmp_path, "miner")
    assert path == tmp_path / "wallets" / "miner.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text()) == list(bytes(keypair))
    assert wallet.load(path) == keypair
    assert [file.name for file in path.parent.iterdir()] == ["miner.json"]
    assert path.stat().st_nlink == 1


def test_a_wallet_is_never_overwritten(tmp_path: Path) -> None:
    keypair = wallet.new(tmp_path, "miner")
    with pytest.raises(ChainError, match="already a wallet"):
        wallet.new(tmp_path, "miner")
    assert wallet.ensure(tmp_path, "miner") == keypair
    assert wallet.names(tmp_path) == ["miner"]


def test_ensure_makes_one_wallet_for_all_who_ask(tmp_path: Path) -> None:
    found: list[Keypair] = []
    threads = [threading.Thread(target=lambda: found.append(wallet.ensure(tmp_path, "shared"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({bytes(keypair) for keypair in found}) == 1
    assert wallet.names(tmp_path) == ["shared"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "id.json", json.dumps(SECRET), mode)
    with pytest.raises(InvalidData, match=f"mode {mode:04o}") as info:
        wallet.load(path)
    assert f"chmod 600 {path}" in info.value.cure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        json.dumps(SECRET[:63]),
        json.dumps([*SECRET, 0]),
        json.dumps([*SECRET[:63], 256]),
        json.dumps([*SECRET[:63], -1]),
        json.dumps([*SECRET[:63], 1.5]),
        json.dumps([*SECRET[:63], True]),
        json.dumps([*SECRET[:63], SECRET[63] ^ 1]),
        json.dumps(SECRET[:32] + SECRET[:32]),
        json.dumps(SECRET) + "x",
        "[" * 4000,
        " " * 5000 + json.dumps(SECRET),
        "\ufeff" + json.dumps(SECRET),
    ],
)
def test_what_is_no_keypair_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "id.json", text)
    with pytest.raises(InvalidData, match="not a Solana keypair") as info:
        wallet.load(path)
    assert ", ".join(map(str, SECRET[:3])) not in info.value.message
    assert info.value.__cause__ is None


@given(st.text(max_size=200))
def test_random_text_is_no_keypair(text: str) -> None:
    assert wallet._parse(text.encode()) is None


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no wallet file"):
        wallet.load(tmp_path / "none.json")
    with pytest.raises(InvalidData):
        wallet.load(tmp_path)


def test_a_wallet_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keypair = wallet.new(tmp_path, "miner")
    path = wallet.path_of(tmp_path, "miner")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(path.parent)
    for given_as in ("miner", str(path), "miner.json", "~/wallets/miner.json", "./miner.json"):
        assert wallet.load(wallet.locate(tmp_path, given_as)) == keypair
    with pytest.raises(NotFound):
        wallet.load(wallet.locate(tmp_path, "other"))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a b", "a/b", "-x", "x" * 65, "ü", "a\n"])
def test_names_that_are_no_plain_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ChainError, match="not a wallet name"):
        wallet.path_of(tmp_path, name)
