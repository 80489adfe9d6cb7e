"""`chain localnet`: a local network for other terminals, served by this process or by a validator."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from chain.commands.options import Command, Number, Whole, answer, home_option, json_option
from common.waking import waking

_REMIND_SECONDS = 15.0


@click.command(
    cls=Command,
    examples=("chain localnet", "chain localnet --validator --reset", "chain localnet --surfpool --clone-from devnet"),
)
@home_option
@json_option
@click.option("--port", default=8899, show_default=True, type=Whole(0, 65533), help="JSON-RPC port.")
@click.option("--irys-port", default=8908, show_default=True, type=Whole(0, 65535), help="Irys port.")
@click.option("--validator", is_flag=True, help="Run solana-test-validator (on PATH, or $SOLANA_TEST_VALIDATOR).")
@click.option("--surfpool", is_flag=True, help="Run Surfpool (on PATH, or $SURFPOOL).")
@click.option(
    "--clone-from",
    metavar="NETWORK|URL",
    help="With a validator: use the programs deployed on that network, for example devnet.",
)
@click.option("--reset", is_flag=True, help="With a validator: start with a new ledger.")
@click.option(
    "--wait",
    metavar="SECONDS",
    type=Number(1, 3600),
    default=120.0,
    show_default=True,
    help="Time that a validator may take to start.",
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
    """Serve a local Solana network and Irys node until Ctrl-C.

    Use it from other terminals with --network localnet, or from the solana command line with
    `--url http://127.0.0.1:8899`. By default it serves the embedded network; both can be used at once.

    With --validator or --surfpool it runs a real validator with its own ledger under --home, the OpenResearch program
    deployed and initialized, and the home's wallets funded. The validator stops with this command and keeps its ledger
    for the next start (Surfpool keeps it in memory only).
    """
    if validator and surfpool:
        raise click.UsageError("--validator and --surfpool exclude each other.")
    if not (validator or surfpool):
        if clone_from or reset:
            raise click.UsageError("--clone-from and --reset need --validator or --surfpool.")
        _embedded(home, as_json, port, irys_port)
        return
    _beside(home, as_json, port, irys_port, validator, clone_from, reset, wait)


def _embedded(home: Path, as_json: bool, port: int, irys_port: int) -> None:
    with waking(quiet=as_json):
        from chain.connection.opening import bootstrap
        from chain.irys.node import serve as serve_irys
        from chain.localnet.server import serve
        from chain.network.embedded import EmbeddedNetwork

        network = EmbeddedNetwork(home)
    try:
        with waking(quiet=as_json):
            bootstrap(network, home)
        irys_node = serve_irys(home / "irys", port=irys_port, network=network, option="--irys-port")
        with irys_node as irys, serve(network, port=port) as server:
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
    test_validator: bool,
    clone_from: str | None,
    reset: bool,
    wait: float,
) -> None:
    """Run a validator as a child process until Ctrl-C or SIGTERM; that it exits by itself is an error."""
    with waking(quiet=as_json):
        from chain.connection import config
        from chain.connection.opening import bootstrap
        from chain.errors import NetworkUnreachable
        from chain.irys.node import serve as serve_irys
        from chain.localnet.validator import Kind, Plan, Validator, find, free_port
        from chain.network.rpc import RpcNetwork
        from chain.program import PROGRAM_ID, image

    kind = Kind.VALIDATOR if test_validator else Kind.SURFPOOL
    executable = find(kind)
    source = config.load({}, asked=clone_from)["rpc_url"] if clone_from else ""
    if clone_from and not source:
        raise click.UsageError(f"--clone-from {clone_from}: that network has no deployed program.")
    plan = Plan(kind, home / kind.value, port or free_port(), PROGRAM_ID, image(), source)
    with _terminable():
        running = Validator(executable, plan, reset=reset)
        try:
            progress = _Progress()
            running.wait(wait, progress)
            progress.clear()
            network = RpcNetwork(plan.url, name="localnet", is_local=True)
            try:
                bootstrap(network, home)
                with serve_irys(plan.folder / "irys", port=irys_port, network=network, option="--irys-port") as irys:
                    ledger = "in memory" if kind is Kind.SURFPOOL else str(plan.ledger)
                    extra = {"log": str(plan.log), "process": running.process.pid}
                    _say_where(as_json, str(plan.program_id), plan.url, irys.url, ledger, extra)
                    if kind is Kind.VALIDATOR:
                        click.echo("The ledger may take up to 6 GB; --reset begins a new one.", err=True)
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
    """One line that is overwritten on a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text[:100]}\r", nl=False, err=True)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _REMIND_SECONDS
            click.echo(text, err=True)

    def clear(self) -> None:
        """Clear the line."""
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)


def _say_where(as_json: bool, program: str, rpc: str, irys: str, ledger: str, extra: dict[str, Any]) -> None:
    from chain.indexer.watch import websocket_url

    where = {"program": program, "rpc": rpc, "events": websocket_url(rpc), "irys": irys, "ledger": ledger, **extra}
    answer(as_json, where, "\n".join(f"{name:<8} {value}" for name, value in where.items()))
    sys.stdout.flush()
    click.echo("Press Ctrl-C to stop. State is kept.", err=True)
