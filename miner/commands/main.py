"""The `miner` program: mine a project, submit a train.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import irys_option, keypair_option, project_option
from chain.commands.doctor import doctor
from chain.commands.options import (
    STOPPING,
    WALLET,
    Number,
    Whole,
    agrees,
    answer,
    common,
    grouped,
    open_connection,
    program,
    stoppable,
)
from common.waking import waking
from miner.commands import look
from miner.commands.compare import compare
from miner.commands.executing import executing
from miner.commands.imports import import_results
from miner.commands.init import init
from miner.commands.proposing import proposing
from miner.executors.choice import Executing
from miner.proposers.choice import Proposing

if TYPE_CHECKING:
    from common.checks import Check
    from common.terminal import View

RESUME = "Stopped. Run the same command to resume."


@program("miner")
def main() -> None:
    """Mine OpenResearch projects: find a better train.py, confirm it, submit it.

    Try `miner run`: without options it uses the practice network (local, no real tokens) and works on any machine.
    """


look.register(main)
main.add_command(init)
main.add_command(import_results)
main.add_command(compare)


def _examine(home: Path, view: View) -> Iterator[Check]:
    from trainer.doctor import examine

    return examine(home, verifier=False, view=view)


main.add_command(doctor("miner", "miner", _examine))


def _who(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for the project to mine and the key to use."""
    options = [
        project_option(
            what="Project ID. [default: the only one, or the smoke project]", default=None, show_default=False
        ),
        keypair_option("miner"),
        grouped(
            WALLET,
            "--reward-recipient",
            metavar="ADDRESS",
            help="Address that receives the reward. [default: the wallet]",
        ),
        grouped(
            WALLET,
            "--stake",
            metavar="TOKENS",
            type=Whole(min=1),
            default=1,
            show_default=True,
            help="Tokens to stake on a proposal.",
        ),
        click.option("--yes", is_flag=True, help="Do not ask before staking on a network that is not local."),
        click.option("--trust-harness", is_flag=True, help="Run the project's own prepare.py to prepare its data."),
        click.option(
            "--run-foreign-code-unconfined",
            "unconfined",
            is_flag=True,
            help="Without a working sandbox, run other people's code with your own rights.",
        ),
        irys_option,
        click.option(
            "--publish",
            type=click.Choice(["smoke", "armlx"]),
            default="smoke",
            show_default=True,
            help="Bundled project to publish on a local network that has none: minutes long, or full size.",
        ),
        click.option(
            "--text",
            metavar="DIR",
            type=click.Path(exists=True, file_okay=False),
            help="Local text to train a project published here on.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _confidence(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--min-confidence",
        metavar="P",
        type=Number(0.5, 0.999999),
        default=0.99,
        show_default=True,
        help="Stake only if the confirming test is this sure of the gain. Verifiers require 0.99.",
    )(command)


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for when a session ends and what it may risk."""
    options = [
        grouped(STOPPING, "--max-trials", metavar="N", type=Whole(min=1), help="Stop after this many candidates."),
        grouped(
            STOPPING,
            "--max-minutes",
            metavar="MINUTES",
            type=Number(min=0, min_open=True),
            help="Start no new trial after this time.",
        ),
        grouped(
            STOPPING,
            "--stagnation",
            metavar="N",
            type=Whole(min=1),
            help="Stop after this many trials in a row without a gain.",
        ),
        grouped(
            STOPPING,
            "--submissions",
            metavar="N",
            type=Whole(min=0),
            default=1,
            show_default=True,
            help="Stop after this many proposals; 0 for no limit.",
        ),
        grouped(
            STOPPING,
            "--max-stake",
            metavar="TOKENS",
            type=Whole(min=1),
            help="Stake at most this many tokens in this session.",
        ),
        grouped(
            STOPPING,
            "--accept-loss",
            is_flag=True,
            help="Submit even if the expected value is negative (rent is never returned) or a rejection likely.",
        ),
        grouped(STOPPING, "--dry-run", is_flag=True, help="Stop at the first confirmed improvement; do not submit it."),
        click.option(
            "--prune/--no-prune",
            default=True,
            show_default=True,
            help="Stop a run early if its loss is too far behind the incumbent's to catch up.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command(
    examples=(
        "miner run",
        "miner run --max-trials 20 --dry-run",
        "miner run --proposer agent --agent-command 'claude -p {prompt}'",
        "miner run --network mainnet --project 0 --yes --max-spend 0.05",
    ),
    stopped=RESUME,
)
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
    accept_loss: bool,
    dry_run: bool,
    prune: bool,
    min_confidence: float,
    proposing: Proposing,
    executing: Executing,
    irys: str | None,
    **who: Any,
) -> None:
    """Search for a better train.py, confirm it, submit it.

    Each candidate is measured against the incumbent in repeated, interleaved runs, and kept only if a sequential test
    finds it better. Before anything is staked, it is measured again against the on-chain best, by the verifier's own
    rules. Press Ctrl-C to stop; run the same command to resume.

    With --json, each event is one line: start, run, decision, keep, confirmation, submission, settlement, stop.
    """
    stoppable()
    with waking(quiet=as_json):
        from miner.context.goals import Goals
        from miner.session import ending, feed, start

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
        accept_loss=accept_loss,
        dry_run=dry_run,
    )
    connection = open_connection(network, home, irys)
    with connection, start.started(connection, project, quiet=as_json, agrees=agrees, **who) as session:
        with feed.told(session, _line if as_json else None), session.dashboard:
            end = start.miner(session, goals, proposing, prune=prune, executing=executing).run()
        if as_json:  # its last line, `stop`, said it
            return
        ending.show_finds(session)
        text = [f"{end.reason}: {end.trials} trials, {end.kept} kept"]
        text += [f"records: {session.folder}"]
        if end.proposals:
            text += [
                "",
                "next, as a verifier:",
                f"  {_command('verifier check', end.proposals[-1], home, network, irys)}",
            ]
        click.echo("\n".join(text))


def _line(event: Mapping[str, Any]) -> None:
    """One event on stdout, as a line of JSON."""
    import json

    click.echo(json.dumps(event))


@main.command(examples=("miner submit train.py", "miner submit train.py --claim 2.5281 --network devnet --project 0"))
@common
@_who
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--claim", metavar="VAL_BPB", help="Claim this value without measuring. If it is wrong, you lose the stake."
)
@click.option("--force", is_flag=True, help="Submit with --claim what no verifier could approve. You lose the stake.")
@_confidence
def submit(
    home: Path,
    network: str,
    as_json: bool,
    project: int | None,
    file: Path,
    claim: str | None,
    force: bool,
    min_confidence: float,
    irys: str | None,
    **who: Any,
) -> None:
    """Submit FILE as a proposal's train.py.

    It is measured against the on-chain best first, by the verifier's own rules, unless --claim is given. Even then it
    must be Python, within the source caps, and the claim must beat the on-chain best.
    """
    with waking(quiet=as_json):
        from miner.session import feed, start
        from miner.session.own_file import require, submit_file

    require(file, claim, force=force)
    connection = open_connection(network, home, irys)
    with connection, start.started(connection, project, quiet=as_json, agrees=agrees, **who) as session:
        with feed.told(session):
            proposal, claimed = submit_file(session, file, claim, min_confidence, force=force)
        command = _command("verifier check", proposal, home, network, irys)
        text = f"proposal {proposal} claims {claimed:.6f}\n\nnext, as a verifier:\n  {command}"
        answer(as_json, {"proposal": proposal, "claimed": str(claimed)}, text)


def _command(command: str, argument: int, home: Path, network: str, irys: str | None) -> str:
    """The next command line, with the options that differ from the defaults."""
    from chain.connection.config import default_home
    from common.resources import shown

    options = "" if network == "embedded" else f" --network {network}"
    options += f" --irys {irys}" if irys else ""
    options += "" if home == default_home() else f" --home {home}"
    return shown(f"{command} {argument}{options}")


if __name__ == "__main__":
    main()
