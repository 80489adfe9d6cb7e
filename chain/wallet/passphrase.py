"""Where passphrases come from: a private file, the operating system's keychain, or a person at a terminal.

Never the environment, which every child process would inherit, and never the command line, which every user of
the machine can list. A command makes a `Source` of its --passphrase-file and of the terminal it can ask on, and
hands it to whatever opens wallets.

What this protects: a stolen disk, backup or copied file is useless without the passphrase, and neither it nor an
unlocked key is in the environment, the descriptors or the command line of any process that is started. A
sandboxed candidate sees no file of the user at all. A script that runs unsandboxed is the same user: it can read
plain wallets and passphrase files, and the memory of this process where the system lets it debug its parent. With
a keychain or the prompt there is at least no file for it to read.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chain.errors import ChainError, InvalidData, NotFound
from chain.wallet.keystore import Keystore, wiped
from common.extras import need

if TYPE_CHECKING:
    from solders.keypair import Keypair
    from solders.pubkey import Pubkey

MIN_LENGTH: Final = 12  # characters of a new passphrase
_MAX_BYTES: Final = 1_024
_SERVICE: Final = "openresearch-wallet"  # the keychain's entries, one per address


@dataclass(frozen=True, slots=True)
class Source:
    """The file if one is named; else the keychain where it has an entry, else a person where there is one to ask.

    `ask` takes a question and whether the answer is to be typed twice, and returns what was typed; None if nobody
    can answer.
    """

    file: Path | None = None
    ask: Callable[[str, bool], str] | None = None

    def unlock(self, store: Keystore) -> Keypair:
        """Open a keystore. ChainError for a missing or wrong passphrase."""
        passphrase, origin = self.find(store.address)
        with wiped(passphrase):
            return store.unlock(passphrase, origin)

    def choose(self, what: str) -> bytearray:
        """The passphrase of a new keystore, typed twice where it is typed; wipe it after use."""
        if self.file is not None:
            found = read_file(self.file)
        elif self.ask is not None:
            found = _typed(self.ask(f"New passphrase for {what}", True))
        else:
            raise ChainError(
                f"An encrypted wallet needs a passphrase for {what}, and there is no terminal to ask on.",
                "Use --passphrase-file FILE.",
            )
        if len(found.decode()) < MIN_LENGTH:
            raise ChainError(
                f"The passphrase has {len(found.decode())} characters; it needs at least {MIN_LENGTH}.",
                "Use several random words.",
            )
        return found

    def find(self, address: Pubkey) -> tuple[bytearray, str]:
        """The passphrase of an existing keystore, to be wiped, and words for where it came from."""
        if self.file is None and (found := recall(address)) is not None:
            return found, " in the keychain"
        return self.typed_or_file(address)

    def typed_or_file(self, address: Pubkey) -> tuple[bytearray, str]:
        """`find` without the keychain."""
        if self.file is not None:
            return read_file(self.file), f" in {self.file}"
        if self.ask is None:
            raise ChainError(
                f"The wallet {address} is encrypted, and no passphrase was given: no --passphrase-file, no entry in "
                "the OS keychain, no terminal to ask on.",
                "Use --passphrase-file FILE, or run `chain wallet unlock NAME` once.",
            )
        return _typed(self.ask(f"Passphrase of the wallet {address}", False)), ""


def read_file(path: Path) -> bytearray:
    """The passphrase in a file: UTF-8 without its last line's end.

    Raises NotFound, or InvalidData if it is no private regular file, empty, too long or more than one line.
    """
    try:
        # Not blocking: a pipe without a writer would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            info = os.fstat(file.fileno())
            raw = bytearray(_MAX_BYTES + 2)
            length = file.readinto(raw) if stat.S_ISREG(info.st_mode) else 0
    except FileNotFoundError:
        raise NotFound(f"There is no passphrase file {path}.", "Choose a file that contains the passphrase.") from None
    except OSError as error:
        raise InvalidData(
            f"Cannot read the passphrase file {path}: {error.strerror}.", "Check its owner and mode."
        ) from None
    if info.st_mode & 0o077:
        raise InvalidData(
            f"The passphrase file {path} has mode {stat.S_IMODE(info.st_mode):04o}: others can read it.",
            f"Run `chmod 600 {path}`, and choose another passphrase if others had access.",
        )
    with wiped(raw):
        ending = 2 if raw.endswith(b"\r\n", 0, length) else 1 if raw.endswith(b"\n", 0, length) else 0
        line = raw[: length - ending]
    if not line or len(line) > _MAX_BYTES or b"\n" in line or (found := _normalized(line)) is None:
        raise InvalidData(
            f"The passphrase file {path} must contain one line of UTF-8, at most {_MAX_BYTES} bytes.",
            "Write only the passphrase into it.",
        )
    return found


def recall(address: Pubkey) -> bytearray | None:
    """The keychain's passphrase of a wallet; None if it has none, or there is no keychain."""
    try:
        import keyring

        found = keyring.get_password(_SERVICE, str(address))
    except Exception:  # of whatever backend is installed; then the next source is asked
        return None
    return bytearray(found.encode()) if found else None


def need_keychain() -> None:
    """ChainError, with what is missing, unless there is a keychain that protects what it is given."""
    need("keyring", "keyring", "The OS keychain")
    cure = "Use --passphrase-file, or the prompt. On Linux a keychain needs a desktop session with a Secret Service."
    try:
        import keyring

        backend = keyring.get_keyring()
        priority = float(backend.priority)
    except Exception as error:
        raise ChainError(f"The OS keychain cannot be used: {type(error).__name__}.", cure) from None
    if priority < 1:  # keyring's own mark of backends that it does not recommend: none at all, or plain text
        raise ChainError(f"No secure OS keychain is available (found {backend.name}).", cure)


def remember(address: Pubkey, passphrase: bytes | bytearray) -> None:
    """Put a wallet's passphrase into the keychain. ChainError if there is none, or it refuses."""
    need_keychain()
    import keyring

    try:
        keyring.set_password(_SERVICE, str(address), passphrase.decode())
        kept = keyring.get_password(_SERVICE, str(address)) == passphrase.decode()
    except Exception as error:
        raise ChainError(
            f"The OS keychain did not store the passphrase: {type(error).__name__}.",
            "Unlock the keychain and try again.",
        ) from None
    if not kept:
        raise ChainError("The OS keychain does not return what was stored.", "Use --passphrase-file instead.")


def forget(address: Pubkey) -> bool:
    """Remove a wallet's passphrase from the keychain; whether there was one. ChainError if that fails."""
    need_keychain()
    import keyring

    try:
        if keyring.get_password(_SERVICE, str(address)) is None:
            return False
        keyring.delete_password(_SERVICE, str(address))
    except Exception as error:
        raise ChainError(
            f"The OS keychain did not remove the passphrase: {type(error).__name__}.", "Unlock it and try again."
        ) from None
    return True


def _typed(answer: str) -> bytearray:
    return bytearray(unicodedata.normalize("NFC", answer).encode())


def _normalized(line: bytearray) -> bytearray | None:
    """One normal form of what keyboards and editors write in several ways; None if it is not UTF-8."""
    if line.isascii():
        return line
    try:
        return bytearray(unicodedata.normalize("NFC", line.decode()).encode())
    except UnicodeDecodeError:
        return None
