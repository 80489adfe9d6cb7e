"""The subcommands of `chain`, a module per group, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from chain.session import Connection

KEYPAIR = "Wallet by name, or a keypair file."
irys_option = click.option(
    "--irys", metavar="URL", envvar="ARMLX_IRYS", help="Irys node, where it is not the network's own."
)


@contextmanager
def connected(network: str, home: Path, irys: str | None = None) -> Iterator[Connection]:
    """A command's connection, closed when it ends."""
    from chain.session import Connection

    with Connection(network, home, irys=irys) as connection:
        yield connection
