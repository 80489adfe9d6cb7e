"""Where passphrases come from: private files, a keychain, a terminal; nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from keyring.backends.fail import Keyring as NoKeychain
from solders.keypair import Keypair

from chain.commands import options
from chain.errors import ChainError, InvalidData, NotFound
from chain.wallet import passphrase
from chain.wallet.keystore import Parameters, seal
from chain.wallet.passphrase import Source
from common.extras import ExtraMissing
from tests.chain import keychains

KEY = Keypair.from_seed(bytes(range(32)))
SECRET = "correct horse battery"
SEALED = seal(KEY, SECRET.encode(), Parameters(n=1 << 14))


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.fixture
def keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KEYCHAIN_FILE", str(tmp_path / "keychain.json"))
    with keychains.installed(keychains.FileKeychain()):
        yield tmp_path / "keychain.json"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"correct horse", b"correct horse"),
        (b"correct horse\n", b"correct horse"),
        (b"correct horse\r\n", b"correct horse"),
        (b"  spaces stay \n", b"  spaces stay "),
        ("caf\u00e9 cr\u00e8me".encode(), "caf\u00e9 cr\u00e8me".encode()),
        ("cafe\u0301 cre\u0300me".encode(), "caf\u00e9 cr\u00e8me".encode()),
        (b"x" * 1024 + b"\n", b"x" * 1024),
    ],
)
def test_a_file_holds_one_line(tmp_path: Path, data: bytes, found: bytes) -> None:
    assert passphrase.read_file(write(tmp_path / "pass", data)) == found


@pytest.mark.parametrize("data", [b"", b"\n", b"a\nb", b"a\n\n", b"\xff\xfe", b"x" * 1025, b"x" * 100_000])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidData, match="one line of UTF-8") as info:
        passphrase.read_file(write(tmp_path / "pass", data))
    assert "xxx" not in info.value.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidData, match=f"mode {mode:04o}"):
        passphrase.read_file(write(tmp_path / "pass", SECRET.encode(), mode))


def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no passphrase file"):
        passphrase.read_file(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        path.chmod(path.stat().st_mode & ~0o077)
        with pytest.raises(InvalidData):
            passphrase.read_file(path)


@given(st.binary(max_size=100).filter(lambda data: b"\n" not in data))
def test_any_line_is_a_passphrase_or_refused(data: bytes) -> None:
    found = passphrase._normalized(bytearray(data))
    assert (found is None) == (data.decode(errors="replace").encode() != data)


def test_a_source_tries_file_then_keychain_then_asks(tmp_path: Path, keychain: Path) -> None:
    good, bad = write(tmp_path / "good", SECRET.encode()), write(tmp_path / "bad", b"another passphrase")
    assert Source(good).unlock(SEALED) == KEY
    with pytest.raises(ChainError, match="no terminal to ask on"):
        Source().unlock(SEALED)
    passphrase.remember(KEY.pubkey(), SECRET.encode())
    assert SECRET in keychain.read_text()
    assert Source().unlock(SEALED) == KEY
    with pytest.raises(ChainError, match=f"The passphrase in {bad} does not open"):
        Source(bad).unlock(SEALED)
    assert passphrase.forget(KEY.pubkey()) is True
    assert passphrase.forget(KEY.pubkey()) is False
    assert passphrase.recall(KEY.pubkey()) is None


def test_a_keychain_that_is_missing_plain_or_broken_is_one_line(
    tmp_path: Path, keychain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keychains.installed(keychains.PlainText()), pytest.raises(ChainError, match="No secure OS keychain"):
        passphrase.remember(KEY.pubkey(), SECRET.encode())
    with keychains.installed(NoKeychain()):  # type: ignore[no-untyped-call]
        assert passphrase.recall(KEY.pubkey()) is None
        with pytest.raises(ChainError, match="No secure OS keychain") as info:
            passphrase.remember(KEY.pubkey(), SECRET.encode())
        assert "--passphrase-file" in info.value.cure
        with pytest.raises(ChainError, match="No secure OS keychain"):
            passphrase.forget(KEY.pubkey())
    keychain.write_text("not json")
    assert passphrase.recall(KEY.pubkey()) is None
    with pytest.raises(ChainError, match="did not store"):
        passphrase.remember(KEY.pubkey(), SECRET.encode())
    with pytest.raises(ChainError, match="did not remove"):
        passphrase.forget(KEY.pubkey())
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.setitem(sys.modules, "keyring", None)  # not installed
    assert passphrase.recall(KEY.pubkey()) is None
    with pytest.raises(ExtraMissing, match="uv sync --extra keyring"):
        passphrase.need_keychain()


def test_a_new_passphrase_is_long_enough(tmp_path: Path) -> None:
    for short in ("x" * 11, "é" * 11):
        with pytest.raises(ChainError, match="has 11 characters; it needs at least 12"):
            Source(write(tmp_path / "pass", short.encode())).choose("it")
    assert Source(write(tmp_path / "pass", b"x" * 12)).choose("it") == b"x" * 12
    with pytest.raises(ChainError, match="no terminal"):
        Source().choose("it")


def test_the_option_names_the_file_and_the_environment_does_not(tmp_path: Path) -> None:
    @click.group()
    def group() -> None:
        pass

    @group.command()
    @options.common
    def command(home: Path, network: str, as_json: bool) -> None:
        click.echo(str(options.passphrases().file))

    given = ["command", "--home", str(tmp_path)]
    names = ("PASSPHRASE_FILE", "ARMLX_PASSPHRASE_FILE", "PASSPHRASE", "ARMLX_PASSPHRASE", "COMMAND_PASSPHRASE_FILE")
    run = CliRunner(env=dict.fromkeys(names, "/from/the/environment"))
    assert run.invoke(group, [*given, "--passphrase-file", "a"]).stdout == "a\n"
    assert run.invoke(group, given).stdout == "None\n"
