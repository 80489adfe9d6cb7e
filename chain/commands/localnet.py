"""`chain localnet`: a local network served for other terminals, by this process or by a validator beside it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import answer, home_option, json_option

if TYPE_CHECKING:
    from chain.localnet.validator import Kind

_REMIND_SECONDS = 15.0


@click.command()
@home_option
@json_option
@click.option("--port", default=8899, show_default=True, type=click.IntRange(0, 65533), help="Port of the JSON-RPC.")
@click.option(
    "--irys-port", default=8908, show_default=True, type=click.IntRange(0, 65535), help="Port of the Irys node."
)
@click.option("--validator", is_flag=True, help="Run solana-test-validator, found on PATH or as SOLANA_TEST_VALIDATOR.")
@click.option("--surfpool", is_flag=True, help="Run Surfpool, found on PATH or as SURFPOOL.")
@click.option(
    "--clone-from",
    metavar="NETWORK|URL",
    help="With a validator: take the deployed program and Metaplex's from there, such as devnet, instead of our own.",
)
@click.option("--reset", is_flag=True, help="With a validator: begin a new ledger.")
@click.option(
    "--wait",
    type=click.FloatRange(1, 3600),
    default=120.0,
    show_default=True,
    help="Seconds that a validator may take to be ready.",
)
def localnet(
    home: Path,
    as_json: bool,
    port: int,
    irys_port: int,
    validator: bool,
    surfpool: bool,
    clone_from: str | None,
    reset: bool,
    wait: float,
) -> None:
    """Serve a local Solana network and Irys node on 127.0.0.1 until Ctrl-C.

    Other terminals then use it with --network localnet, and the solana command line with
    `--url http://127.0.0.1:8899`. By default it is the embedded network as JSON-RPC, the same as --network embedded:
    both may be used at once.

    With --validator or --surfpool it is a validator of its own with a ledger under --home, with the OpenResearch
    program at its usual address, initialized, and the home's wallets funded. It ends with this command, and the next
    start goes on with its ledger (Surfpool's lives in memory). With --clone-from devnet it runs the program that is
    deployed there.
    """
    from chain.localnet.validator import Kind

    if validator and surfpool:
        raise click.UsageError("Give either --validator or --surfpool.")
    if not (validator or surfpool):
        if clone_from or reset:
            raise click.UsageError("--clone-from and --reset go with --validator or --surfpool.")
        _embedded(home, as_json, port, irys_port)
        return
    kind = Kind.VALIDATOR if validator else Kind.SURFPOOL
    _beside(home, as_json, port, irys_port, kind, clone_from, reset, wait)


def _embedded(home: Path, as_json: bool, port: int, irys_port: int) -> None:
    from chain.connection.opening import bootstrap
    from chain.irys.node import serve as serve_irys
    from chain.localnet.server import serve
    from chain.money.client import Client
    from chain.network.embedded import EmbeddedNetwork

    network = EmbeddedNetwork(home)
    try:
        bootstrap(Client(network), home)
        with serve_irys(home / "irys", port=irys_port, network=network) as irys, serve(network, port=port) as server:
            _say_where(as_json, str(network.program_id), server.url, irys.url, str(home / "ledger.sqlite"), {})
            try:
                server.run()
            except KeyboardInterrupt:
                click.echo("stopped", err=True)
    finally:
        network.close()


def _beside(
    home: Path,
    as_json: bool,
    port: int,
    irys_port: int,
    kind: Kind,
    clone_from: str | None,
    reset: bool,
    wait: float,
) -> None:
    """Run a validator beside this process until Ctrl-C or SIGTERM, or until it ends by itself, which is refused."""
    from chain.connection import config
    from chain.connection.opening import bootstrap
    from chain.errors import NetworkUnreachable
    from chain.irys.node import serve as serve_irys
    from chain.localnet.validator import Kind, Plan, Validator, find, free_port
    from chain.money.client import Client
    from chain.network.rpc import RpcNetwork
    from chain.program import PROGRAM_ID, image

    executable = find(kind)
    source = config.load({}, asked=clone_from)["rpc_url"] if clone_from else ""
    if clone_from and not source:
        raise click.UsageError(f"--clone-from {clone_from}: that network is in no cluster.")
    plan = Plan(kind, home / kind.value, port or free_port(), PROGRAM_ID, image(), source)
    with _terminable():
        running = Validator(executable, plan, reset=reset)
        try:
            progress = _Progress()
            running.wait(wait, progress)
            progress.clear()
            network = RpcNetwork(plan.url, name="localnet", is_local=True)
            try:
                bootstrap(Client(network), home)
                with serve_irys(plan.folder / "irys", port=irys_port, network=network) as irys:
                    ledger = "in memory" if kind is Kind.SURFPOOL else str(plan.ledger)
                    extra = {"log": str(plan.log), "process": running.process.pid}
                    _say_where(as_json, str(plan.program_id), plan.url, irys.url, ledger, extra)
                    while True:
                        running.check()
                        time.sleep(0.2)
            finally:
                network.close()
        except NetworkUnreachable:
            running.check()  # where it has ended, that is the cause
            raise
        except KeyboardInterrupt:
            click.echo(f"stopping {kind.program}", err=True)
            click.echo("stopped" if running.stop() else "killed: it did not stop when asked", err=True)
        finally:
            running.stop()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Progress:
    """One line on a terminal that is written over, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text[:100]}\r", nl=False, err=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _REMIND_SECONDS
            click.echo(text, err=True)

    def clear(self) -> None:
        """Take the line away."""
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


def _say_where(as_json: bool, program: str, rpc: str, irys: str, ledger: str, extra: dict[str, Any]) -> None:
    from chain.indexer.watch import websocket_url

    where = {"program": program, "rpc": rpc, "events": websocket_url(rpc), "irys": irys, "ledger": ledger, **extra}
    answer(as_json, where, "\n".join(f"{name:<8} {value}" for name, value in where.items()))
    sys.stdout.flush()
    click.echo("Ctrl-C stops; nothing is lost.", err=True)
