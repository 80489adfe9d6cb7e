"""A keychain for tests, through keyring's own interface for further backends: what is kept, is kept in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keyring
from keyring.backend import KeyringBackend


class FileKeychain(KeyringBackend):
    """Keeps entries in the file that KEYCHAIN_FILE names; fails as a locked keychain does where it is unreadable."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def get_password(self, service: str, username: str) -> str | None:
        found = self._entries().get(f"{service}/{username}")
        return str(found) if found is not None else None

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._entries(), f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        entries = self._entries()
        del entries[f"{service}/{username}"]
        self._write(entries)

    def _entries(self) -> dict[str, str]:
        path = Path(os.environ["KEYCHAIN_FILE"])
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _write(self, entries: dict[str, str]) -> None:
        Path(os.environ["KEYCHAIN_FILE"]).write_text(json.dumps(entries))


class PlainText(FileKeychain):
    """One that keyring does not recommend."""

    priority = 0.5  # type: ignore[assignment]


@contextmanager
def installed(backend: KeyringBackend) -> Iterator[None]:
    """keyring with this backend."""
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        yield
    finally:
        keyring.set_keyring(before)
