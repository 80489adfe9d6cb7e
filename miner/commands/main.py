"""The `miner` command: mine a project, submit a train.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chain.commands.options import Commands, agrees, answer, common, open_connection, stoppable, versioned
from miner.commands import look
from miner.commands.executing import executing
from miner.commands.init import init
from miner.commands.proposing import proposing
from miner.executors.choice import Executing
from miner.proposers.choice import Proposing


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@versioned
def main() -> None:
    """Mine OpenResearch projects: find a train.py with a lower val_bpb, prove it, submit it on chain.

    `miner run` with nothing else works on any machine: it uses a local network inside this process, on
    which nothing is real and nothing leaves the machine.
    """


look.register(main)
main.add_command(init)


def _who(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which project is mined and with whose key."""
    options = [
        click.option(
            "--project",
            type=click.IntRange(min=0),
            help="Project id. [default: the only one, or the smoke project]",
        ),
        click.option("--keypair", metavar="NAME|FILE", help="Wallet that stakes. [default: the home's wallet 'miner']"),
        click.option("--reward-recipient", metavar="ADDRESS", help="Who gets the reward. [default: the wallet]"),
        click.option("--stake", type=click.IntRange(min=1), default=1, show_default=True, help="Tokens to stake."),
        click.option("--yes", is_flag=True, help="Do not ask before staking on a network that is not local."),
        click.option("--trust-harness", is_flag=True, help="Let the project's own prepare.py prepare its data here."),
        click.option(
            "--irys", metavar="URL", envvar="ARMLX_IRYS", help="Irys node, where it is not the network's own."
        ),
        click.option(
            "--publish",
            type=click.Choice(["smoke", "armlx"]),
            default="smoke",
            show_default=True,
            help="The bundled project that a local network without any gets: for minutes, or at full size.",
        ),
        click.option("--text", metavar="DIR", help="Local text that a project published here is trained on."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _confidence(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--min-confidence",
        type=click.FloatRange(0.5, 0.999999),
        default=0.99,
        show_default=True,
        help="Stake only on a gain that the confirming test is this sure of; below 0.99 a verifier's 0.99 counts.",
    )(command)


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say when a session ends and what it may risk."""
    options = [
        click.option("--max-trials", type=click.IntRange(min=1), help="Stop after this many candidates."),
        click.option(
            "--max-minutes", type=click.FloatRange(min=0, min_open=True), help="Start no new trial after this long."
        ),
        click.option(
            "--stagnation", type=click.IntRange(min=1), help="Stop after this many trials in a row without a gain."
        ),
        click.option(
            "--submissions",
            type=click.IntRange(min=0),
            default=1,
            show_default=True,
            help="Stop after this many; 0 mines on.",
        ),
        click.option("--max-stake", type=click.IntRange(min=1), help="Most tokens to stake in this session."),
        click.option("--dry-run", is_flag=True, help="Stop at the first improvement without submitting it."),
        click.option(
            "--race/--no-race",
            default=True,
            show_default=True,
            help="Stop a run early whose loss curve is hopeless beside the incumbent's.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@common
@_who
@_limits
@_confidence
@proposing
@executing
def run(
    home: Path,
    network: str,
    as_json: bool,
    project: int | None,
    max_trials: int | None,
    max_minutes: float | None,
    stagnation: int | None,
    submissions: int,
    max_stake: int | None,
    dry_run: bool,
    race: bool,
    min_confidence: float,
    proposing: Proposing,
    executing: Executing,
    irys: str | None,
    **who: Any,
) -> None:
    """Mine until a candidate beats the incumbent significantly, confirm it, then submit it.

    Each candidate is measured against the incumbent in repeated, interleaved runs, and kept only if a sequential
    test says that it is better. Before anything is staked, what was kept is measured once more against the best on
    chain, by a verifier's own rules. Ctrl-C stops at any time; the same command continues.
    """
    from miner.context.goals import Goals
    from miner.session import start

    stoppable()
    proposing.check()
    executing.check()
    goals = Goals(
        max_trials=max_trials,
        max_minutes=max_minutes,
        stagnation=stagnation,
        submissions=submissions,
        stake=who["stake"],
        max_stake=max_stake,
        min_confidence=min_confidence,
        dry_run=dry_run,
    )
    connection = open_connection(network, home, irys)
    with connection, start.started(connection, project, quiet=as_json, agrees=agrees, **who) as session:
        try:
            with session.view:
                summary = session.miner(goals, proposing, race=race, executing=executing).run()
        except KeyboardInterrupt:
            session.view.say("\nstopped; the same command continues from here")
            raise SystemExit(130) from None
        text = [f"{summary.reason}: {summary.trials} trials, {summary.kept} kept"]
        text += [f"records: {session.folder}"]
        if summary.proposals:
            text += [
                "",
                "next, as a verifier:",
                f"  {_command('verifier check', summary.proposals[-1], home, network, who['irys'])}",
            ]
        document = {
            "project": session.project.id,
            "network": session.connection.network.name,
            "reason": summary.reason,
            "trials": summary.trials,
            "kept": summary.kept,
            "best_delta": summary.best_delta,
            "proposals": list(summary.proposals),
            "folder": str(session.folder),
        }
        answer(as_json, document, "\n".join(text))


@main.command()
@common
@_who
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--claim", metavar="VAL_BPB", help="Claim this value instead of measuring.")
@_confidence
def submit(
    home: Path,
    network: str,
    as_json: bool,
    project: int | None,
    file: Path,
    claim: str | None,
    min_confidence: float,
    irys: str | None,
    **who: Any,
) -> None:
    """Submit FILE as the proposal's train.py, put through the confirming test first unless --claim is given."""
    from miner.session import start

    connection = open_connection(network, home, irys)
    with connection, start.started(connection, project, quiet=as_json, agrees=agrees, **who) as session:
        try:
            proposal, claimed = start.submit_file(session, file, claim, min_confidence)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        command = _command("verifier check", proposal, home, network, irys)
        text = f"proposal {proposal} claims {claimed:.6f}\n\nnext, as a verifier:\n  {command}"
        answer(as_json, {"proposal": proposal, "claimed": str(claimed)}, text)


def _command(command: str, argument: int, home: Path, network: str, irys: str | None) -> str:
    """A command line that continues here, with the options that differ from the defaults."""
    from chain.connection.config import default_home
    from common.resources import shown

    options = "" if network == "embedded" else f" --network {network}"
    options += f" --irys {irys}" if irys else ""
    options += "" if home == default_home() else f" --home {home}"
    return shown(f"{command} {argument}{options}")


if __name__ == "__main__":
    main()
