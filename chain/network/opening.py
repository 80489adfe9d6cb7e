"""Opening a network by its name or URL."""

from __future__ import annotations

import re
from pathlib import Path

from solders.pubkey import Pubkey

from chain.errors import ChainError
from chain.network.base import Network
from chain.program import PROGRAM_ID


def connect(
    name: str,
    home: Path,
    *,
    url: str = "",
    program_id: Pubkey | None = None,
    commitment: str = "confirmed",
    is_local: bool | None = None,
) -> Network:
    """Open "embedded" (the ledger under `home`), or the cluster behind `url`, by default `name` itself.

    `is_local` says whether wallets may be made and funded there on their own, by default on this machine.
    Raises ChainError if there is no http(s) URL. An RPC node is first contacted by the first call.
    """
    program = program_id or PROGRAM_ID
    if name == "embedded":
        from chain.network.embedded import EmbeddedNetwork  # starts a VM: only where it is used

        return EmbeddedNetwork(home, program_id=program)
    url = url or name
    if not re.match(r"https?://[^/\s]", url):
        raise ChainError(f"There is no network named {name!r}.", "Use embedded, or an http(s) URL.")
    from chain.network.rpc import RpcNetwork

    return RpcNetwork(url, program_id=program, name=name, commitment=commitment, is_local=is_local)
