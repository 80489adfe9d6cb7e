"""`chain localnet`: the embedded ledger and the local Irys node, served."""

from __future__ import annotations

from pathlib import Path

import click

from chain.options import home_option


@click.command()
@home_option
@click.option("--port", default=8899, show_default=True, type=click.IntRange(0, 65535), help="Port of the JSON-RPC.")
@click.option(
    "--irys-port", default=8908, show_default=True, type=click.IntRange(0, 65535), help="Port of the Irys node."
)
def localnet(home: Path, port: int, irys_port: int) -> None:
    """Serve the embedded ledger as JSON-RPC, and the local Irys node, on 127.0.0.1 until Ctrl-C.

    Other terminals then use it with --network localnet, and the solana command line with
    `--url http://127.0.0.1:8899`. It is the same ledger as --network embedded: both may be used at once.
    """
    from chain.client import Client
    from chain.irys.node import serve as serve_irys
    from chain.ledger import Ledger
    from chain.server import serve
    from chain.session import bootstrap
    from chain.watch import websocket_url

    ledger = Ledger(home)
    try:
        bootstrap(Client(ledger), home)
        with serve_irys(home / "irys", port=irys_port, network=ledger) as irys, serve(ledger, port=port) as server:
            click.echo(f"program  {ledger.program_id}")
            click.echo(f"rpc      {server.url}")
            click.echo(f"events   {websocket_url(server.url)}")
            click.echo(f"irys     {irys.url}")
            click.echo(f"ledger   {home / 'ledger.sqlite'}")
            click.echo("Ctrl-C stops; nothing is lost.", err=True)
            try:
                server.run()
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
    finally:
        ledger.close()
