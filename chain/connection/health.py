"""Whether the network and a role's wallet are there, for `miner doctor` and `verifier doctor`. Sends nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from chain.connection.config import Settings
from chain.errors import ChainError
from chain.network.opening import connect
from chain.wallet import wallet
from common.checks import Check


def examine(settings: Settings, home: Path, role: str) -> Iterator[Check]:
    """Two lines; addresses, node URLs and paths are in neither."""
    yield _network(settings, home)
    yield _wallet(settings, home, role)


def _network(settings: Settings, home: Path) -> Check:
    name = settings.network if "://" not in settings.network else "a node by URL"
    if settings.network == "embedded":
        return Check("network", "ok", "embedded: practice inside this process, no real tokens")
    try:
        network = connect(settings.network, home, url=settings["rpc_url"], is_local=settings["is_local"])
        try:
            begin = time.monotonic()
            network.latest_blockhash()
            seconds = time.monotonic() - begin
            same = not settings["genesis"] or str(network.genesis_hash) == settings["genesis"]
        finally:
            network.close()
    except (ChainError, OSError):
        return Check("network", "missing", f"{name} does not answer.", "Check the connection and --rpc-url.")
    if not same:
        return Check("network", "missing", f"the node is of another network than {name}.", "Check --rpc-url.")
    return Check("network", "ok", f"{name} answers in {seconds:.2f} s")


def _wallet(settings: Settings, home: Path, role: str) -> Check:
    if settings.network == "embedded" or settings["is_local"]:
        return Check("wallet", "ok", "made and funded when it is needed")
    path = wallet.path_of(home, role)
    try:
        configured = settings["keypair"]
        found = wallet.look(wallet.locate(home, configured) if configured and not path.exists() else path)
    except ChainError:
        cure = f"Create it with `chain wallet new {role} --encrypted`."
        return Check("wallet", "differs", f"there is no wallet {role!r}.", cure)
    if not found.encrypted:
        return Check("wallet", "differs", "there, but not encrypted.", f"Run `chain wallet encrypt {role}`.")
    return Check("wallet", "ok", "there, encrypted")
