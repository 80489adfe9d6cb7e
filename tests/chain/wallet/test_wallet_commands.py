"""`chain wallet` with encrypted wallets: made, opened by every command that signs, never overwritten or shown."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.keypair import Keypair

from chain.errors import ChainError
from chain.wallet import keystore, passphrase, wallet
from chain.wallet.passphrase import Source
from tests import local
from tests.chain import keychains
from tests.chain.commands.test_cli import ask, chain, refused

ROOT = Path(__file__).parents[3]
SECRET = "correct horse battery"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keystores of this process take 16 MiB and 30 ms to open; those of real commands below the usual."""
    monkeypatch.setattr(keystore, "USUAL", keystore.Parameters(n=1 << 14))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return passphrase_file(tmp_path / "secret", SECRET)


@pytest.fixture
def keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KEYCHAIN_FILE", str(tmp_path / "keychain.json"))
    with keychains.installed(keychains.FileKeychain()):
        yield tmp_path / "keychain.json"


def passphrase_file(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def only(home: Path, *names: str) -> None:
    """The home's wallets are these files, all private, and nothing else was left behind."""
    files = sorted(wallet.folder(home).iterdir())
    assert [file.name for file in files] == [f"{name}.json" for name in names]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_an_encrypted_wallet_is_made_and_never_overwritten(tmp_path: Path, secret: Path) -> None:
    made = ask(tmp_path, "wallet", "new", "miner", "--encrypted", "--passphrase-file", secret)
    assert made["kind"] == "encrypted"
    path = Path(made["file"])
    raw = path.read_bytes()
    assert keystore.looks_encrypted(raw)
    assert SECRET.encode() not in raw
    assert str(wallet.load(path, Source(secret)).pubkey()) == made["address"]
    for more in ((), ("--encrypted", "--passphrase-file", secret)):
        refused(chain(tmp_path, "wallet", "new", "miner", *more), "already a wallet")
    assert path.read_bytes() == raw
    only(tmp_path, "miner")


def test_a_passphrase_without_encryption_is_wrong_usage(tmp_path: Path, secret: Path) -> None:
    refused(chain(tmp_path, "wallet", "new", "miner", "--passphrase-file", secret), "--encrypted", code=2)
    refused(chain(tmp_path, "wallet", "new", "miner", "--encrypted"), "--passphrase-file")
    assert not wallet.names(tmp_path)


def test_commands_that_sign_open_it_and_others_need_not(tmp_path: Path, secret: Path) -> None:
    home = local.home_with_project(tmp_path / "home")
    plain = wallet.load(wallet.path_of(home, "miner"))
    changed = ask(home, "wallet", "encrypt", "miner", "--passphrase-file", secret)
    assert (changed["address"], changed["kind"]) == (str(plain.pubkey()), "encrypted")
    only(home, "authority", "miner", "verifier")
    refused(chain(home, "wallet", "encrypt", "miner", "--passphrase-file", secret), "already encrypted")

    assert len(ask(home, "project", "list")) == 1
    shown = {row["name"]: (row["address"], row["kind"]) for row in ask(home, "wallet", "show")}
    assert shown["miner"] == (str(plain.pubkey()), "encrypted")
    assert shown["verifier"][1] == "plain"
    assert "encrypted" in chain(home, "wallet", "show", "miner").stdout

    buy = ("token", "buy", "--lamports", local.cost(0, 3))
    refused(chain(home, *buy), "is encrypted", "no terminal to ask on", "--passphrase-file")
    other = passphrase_file(tmp_path / "other", "another passphrase")
    refused(chain(home, *buy, "--passphrase-file", other), f"in {other} does not open")
    bought = ask(home, *buy, "--passphrase-file", secret)
    assert bought["tokens"] == 3
    path = wallet.path_of(home, "miner")
    held = ask(home, "token", "balance", "--keypair", path)  # an address is no secret
    assert (held["address"], held["tokens"]) == (str(plain.pubkey()), 3)
    assert ask(home, "irys", "balance")["address"] == str(plain.pubkey())


def test_import_takes_both_kinds(tmp_path: Path, secret: Path) -> None:
    key = Keypair()
    wallet.save(tmp_path / "id.json", key)
    for name, more, kind in (("a", (), "plain"), ("b", ("--encrypted", "--passphrase-file", secret), "encrypted")):
        made = ask(tmp_path, "wallet", "import", name, tmp_path / "id.json", *more)
        assert (made["address"], made["kind"]) == (str(key.pubkey()), kind)
        assert wallet.load(wallet.locate(tmp_path, name), Source(secret)) == key
    made = ask(tmp_path, "wallet", "import", "c", wallet.path_of(tmp_path, "b"), "--passphrase-file", secret)
    assert made["kind"] == "encrypted"
    assert wallet.load(wallet.locate(tmp_path, "c"), Source(secret)) == key
    refused(chain(tmp_path, "wallet", "import", "a", tmp_path / "id.json"), "already a wallet")
    refused(chain(tmp_path, "wallet", "import", "d", tmp_path / "none.json"), "no wallet file")
    only(tmp_path, "a", "b", "c")


def test_the_keychain_opens_it_until_it_forgets(tmp_path: Path, secret: Path, keychain: Path) -> None:
    home = tmp_path / "home"
    made = ask(home, "wallet", "new", "miner", "--keychain", "--passphrase-file", secret)
    assert made["kind"] == "encrypted"
    assert SECRET in keychain.read_text()
    assert str(wallet.load(wallet.locate(home, "miner")).pubkey()) == made["address"]
    assert ask(home, "wallet", "forget", "miner")["removed"] is True
    assert ask(home, "wallet", "forget", "miner")["removed"] is False
    with pytest.raises(ChainError, match="no terminal"):
        wallet.load(wallet.locate(home, "miner"))
    other = passphrase_file(tmp_path / "other", "another passphrase")
    refused(chain(home, "wallet", "unlock", "miner", "--passphrase-file", other), "does not open")
    assert SECRET not in keychain.read_text()
    assert ask(home, "wallet", "unlock", "miner", "--passphrase-file", secret)["keychain"] is True
    assert str(wallet.load(wallet.locate(home, "miner")).pubkey()) == made["address"]
    ask(home, "wallet", "new", "open")
    refused(chain(home, "wallet", "unlock", "open", "--passphrase-file", secret), "is not encrypted")


def test_without_a_keychain_nothing_is_made(tmp_path: Path, secret: Path, keychain: Path) -> None:
    with keychains.installed(keychains.PlainText()):
        for words in (("new", "miner"), ("new", "miner", "--encrypted")):
            refused(
                chain(tmp_path, "wallet", *words, "--keychain", "--passphrase-file", secret), "No secure OS keychain"
            )
    assert not wallet.names(tmp_path)


def test_the_plain_bytes_are_overwritten_unless_another_name_leads_to_them(tmp_path: Path) -> None:
    key = Keypair()
    path, linked = tmp_path / "a.json", tmp_path / "b.json"
    for file in (path, linked):
        wallet.save(file, key)
    other = tmp_path / "other.json"
    os.link(linked, other)
    with path.open("rb") as alone, linked.open("rb") as shared:
        assert wallet.encrypt(path, SECRET.encode()) == key.pubkey()
        assert wallet.encrypt(linked, SECRET.encode()) == key.pubkey()
        assert set(alone.read()) == {0}
        assert json.loads(shared.read()) == list(bytes(key))
    assert wallet.load(other) == key
    for file in (path, linked):
        assert wallet.look(file) == wallet.WalletSummary(key.pubkey(), True)
    (tmp_path / "link.json").symlink_to(other)
    with pytest.raises(ChainError, match="is a link"):
        wallet.encrypt(tmp_path / "link.json", SECRET.encode())
    assert wallet.load(other) == key


def test_killed_while_it_encrypts_one_form_is_left_whole(tmp_path: Path, secret: Path) -> None:
    key = Keypair()
    path = wallet.path_of(tmp_path, "miner")
    wallet.save(path, key)
    command = [sys.executable, "-m", "chain.commands.main", "wallet", "encrypt", "miner"]
    command += ["--home", str(tmp_path), "--passphrase-file", str(secret)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(path.parent.iterdir())) == 1:
        time.sleep(0.001)
    process.kill()  # the encrypted file is there beside the plain one, perhaps not whole yet
    process.wait()
    assert wallet.load(path, Source(secret)) == key
    assert wallet.names(tmp_path) == ["miner"]


# --- on a terminal ---


def typed(home: Path, arguments: list[str], answers: list[str], **environment: str) -> tuple[int, str]:
    """A command on a terminal of its own: its exit status and what the terminal showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ.update(environment)
        os.execv(sys.executable, [sys.executable, "-m", "chain.commands.main", *arguments, "--home", str(home)])
    shown, deadline = "", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        shown += chunk
        if answers and shown.rstrip(" ").endswith(":"):
            time.sleep(0.2)  # until the terminal's echo is off
            os.write(terminal, answers.pop(0).encode() + b"\n")
            shown += "\n"
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_on_a_terminal_the_passphrase_is_asked_for_and_not_shown(tmp_path: Path, secret: Path) -> None:
    code, shown = typed(tmp_path, ["wallet", "new", "miner", "--encrypted"], [SECRET, SECRET])
    assert code == 0, shown
    assert "New passphrase for the wallet miner" in shown
    assert SECRET not in shown
    address = str(wallet.load(wallet.locate(tmp_path, "miner"), Source(secret)).pubkey())
    assert address in shown

    where = {"KEYCHAIN_FILE": str(tmp_path / "keychain.json")}
    where["PYTHON_KEYRING_BACKEND"] = "tests.chain.keychains.FileKeychain"
    code, shown = typed(tmp_path, ["wallet", "unlock", "miner"], ["a wrong passphrase"], **where)
    assert code == 1
    assert "does not open" in shown
    code, shown = typed(tmp_path, ["wallet", "unlock", "miner"], [SECRET], **where)
    assert code == 0, shown
    assert SECRET not in shown
    assert json.loads((tmp_path / "keychain.json").read_text()) == {f"{passphrase._SERVICE}/{address}": SECRET}
