"""The commands of `chain wallet` that create and protect keys: new, import, encrypt, unlock, forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import Command, answer, home_option, json_option, passphrase_option, passphrases

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

_encrypted_option = click.option("--encrypted", is_flag=True, help="Encrypt the file with a passphrase.")
_keychain_option = click.option(
    "--keychain", is_flag=True, help="Encrypt the file and keep its passphrase in the OS keychain."
)


def _local(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of commands that use no network."""
    for option in (json_option, home_option, passphrase_option):
        command = option(command)
    return command


@click.command("new", cls=Command, examples=("chain wallet new savings", "chain wallet new savings --keychain"))
@_local
@_encrypted_option
@_keychain_option
@click.argument("name")
def new(home: Path, as_json: bool, encrypted: bool, keychain: bool, name: str) -> None:
    """Create a wallet. An existing one is never overwritten.

    A plain file is a standard Solana keypair. An encrypted one opens only with its passphrase, wherever a command takes
    --keypair NAME. A lost passphrase cannot be recovered: keep a copy of it elsewhere.
    """
    from chain.wallet import wallet as wallets

    path = wallets.path_of(home, name)
    with _new_passphrase(path, encrypted, keychain) as secret:
        key = wallets.new(home, name, secret).pubkey()
        _keep(key, secret, keychain)
    _made(as_json, name, key, path, secret is not None)


@click.command("import", cls=Command, examples=("chain wallet import main ~/.config/solana/id.json --encrypted",))
@_local
@_encrypted_option
@_keychain_option
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
def import_(home: Path, as_json: bool, encrypted: bool, keychain: bool, name: str, file: Path) -> None:
    """Create the wallet NAME from a keypair FILE.

    FILE is a Solana keypair, or a wallet encrypted by this client; it is not changed. A wallet from an encrypted FILE
    is encrypted with the same passphrase.
    """
    from chain.wallet import passphrase
    from chain.wallet import wallet as wallets
    from chain.wallet.keystore import wiped

    path = wallets.path_of(home, name)
    entry = wallets.look(file)
    if entry.encrypted:
        if keychain:
            passphrase.need_keychain()
        secret, origin = passphrases().find(entry.address)
        with wiped(secret):
            wallets.save(path, wallets.sealed(file).unlock(secret, origin), secret)
            _keep(entry.address, secret, keychain)
    else:
        with _new_passphrase(path, encrypted, keychain) as chosen:
            wallets.save(path, wallets.load(file), chosen)
            _keep(entry.address, chosen, keychain)
            entry = wallets.look(path)
    _made(as_json, name, entry.address, path, entry.encrypted)


@click.command(cls=Command, examples=("chain wallet encrypt miner", "chain wallet encrypt miner --keychain"))
@_local
@_keychain_option
@click.argument("name")
def encrypt(home: Path, as_json: bool, keychain: bool, name: str) -> None:
    """Encrypt the plain wallet NAME in place.

    NAME may be a keypair file. The plain file is removed once the encrypted one was read back and unlocked. Copies
    elsewhere, such as backups, stay plain.
    """
    from chain.errors import ChainError
    from chain.wallet import wallet as wallets

    path = wallets.locate(home, name)
    if wallets.look(path).encrypted:
        raise ChainError(f"The wallet {name} is already encrypted.", "Nothing was changed.")
    with _new_passphrase(path, True, keychain) as secret:
        assert secret is not None
        key = wallets.encrypt(path, secret)
        _keep(key, secret, keychain)
    _made(as_json, name, key, path, True)


@click.command(cls=Command, examples=("chain wallet unlock miner",))
@_local
@click.argument("name")
def unlock(home: Path, as_json: bool, name: str) -> None:
    """Keep a wallet's passphrase in the OS keychain.

    The passphrase is checked first. Afterwards anyone logged in as you can use the wallet, until you run
    `chain wallet forget`.
    """
    from chain.wallet import passphrase
    from chain.wallet import wallet as wallets
    from chain.wallet.keystore import wiped

    passphrase.need_keychain()
    store = wallets.sealed(wallets.locate(home, name))
    secret, origin = passphrases().typed_or_file(store.address)
    with wiped(secret):
        store.unlock(secret, origin)
        passphrase.remember(store.address, secret)
    answer(
        as_json,
        {"name": name, "address": str(store.address), "keychain": True},
        f"{store.address} opens without asking from now on",
    )


@click.command(cls=Command, examples=("chain wallet forget miner",))
@home_option
@json_option
@click.argument("name")
def forget(home: Path, as_json: bool, name: str) -> None:
    """Remove a wallet's passphrase from the OS keychain."""
    from chain.wallet import passphrase
    from chain.wallet import wallet as wallets

    address = wallets.sealed(wallets.locate(home, name)).address
    removed = passphrase.forget(address)
    words = "was removed from the keychain" if removed else "was not in the keychain"
    answer(
        as_json,
        {"name": name, "address": str(address), "removed": removed},
        f"the passphrase of {address} {words}",
    )


COMMANDS = (new, import_, encrypt, unlock, forget)


@contextmanager
def _new_passphrase(path: Path, encrypted: bool, keychain: bool) -> Iterator[bytearray | None]:
    """A new wallet's passphrase, wiped at the end; None for a plain one. Refuses before anything is written."""
    from chain.wallet import passphrase
    from chain.wallet.keystore import wiped

    source = passphrases()
    if not (encrypted or keychain):
        if source.file is not None:
            raise click.UsageError("--passphrase-file needs --encrypted or --keychain.")
        yield None
        return
    if keychain:
        passphrase.need_keychain()
    with wiped(source.choose(f"the wallet {path.stem}")) as secret:
        yield secret


def _keep(address: Pubkey, secret: bytearray | None, keychain: bool) -> None:
    """Keep the passphrase in the keychain if that was asked for; the wallet is on disk by now."""
    from chain.wallet import passphrase

    if keychain and secret is not None:
        passphrase.remember(address, secret)


def _made(as_json: bool, name: str, address: Pubkey, path: Path, encrypted: bool) -> None:
    kind = "encrypted" if encrypted else "plain"
    document = {"name": name, "address": str(address), "file": str(path), "kind": kind}
    answer(as_json, document, f"{address}\n{path} ({kind})")
