"""`miner init`: fetch a project, verify it, lay it out, and report what this machine lacks for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import irys_option, project_option
from chain.commands.options import Command as HelpfulCommand
from chain.commands.options import Number, answer, open_connection, reading
from chain.commands.options import agrees as agrees_to
from common.resources import shown
from common.waking import waking

if TYPE_CHECKING:
    from chain.projects.artifacts import CheckedArtifact
    from common.checks import Check
    from common.terminal import View
    from miner.setup.prepare import SetUp, SetupCommand
    from trainer.project.task import Task


@click.command(
    cls=HelpfulCommand, examples=("miner init --project 0 --network devnet", "miner init --project 0 armlx --yes")
)
@reading
@project_option(required=True, default=None)
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
@irys_option
@click.option("--yes", is_flag=True, help="Run the project's setup commands without asking.")
@click.option(
    "--setup-minutes",
    metavar="MINUTES",
    type=Number(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Time limit of one setup command.",
)
def init(
    home: Path,
    network: str,
    as_json: bool,
    project: int,
    folder: Path | None,
    irys: str | None,
    yes: bool,
    setup_minutes: float,
) -> None:
    """Fetch a project into a git work tree and check this machine.

    DIR is the new work tree. [default: a folder named after the project's token]

    Each artifact's SHA-256, signature and owner are checked against the chain before it is used. The snapshot becomes
    the first commit; the best approved code is a second one, on its own branch. Then the command reports what this
    machine has, what is missing and how to get it.

    The project's setup commands are its author's code. They run with your user's rights and without your environment
    variables. Each is shown first and runs only if you agree; nothing else of the project runs.
    """
    with waking(quiet=as_json):
        from chain.projects.artifacts import fetch_project
        from common.terminal import View
        from miner.setup import readiness
        from miner.setup.init import folder_name, lay_out, require_empty
        from trainer.project import task

    view = View(quiet=as_json)
    with open_connection(network, home, irys) as connection:
        account = connection.client.project(project)
        folder = (folder or Path(folder_name(account.token_symbol, project))).absolute()
        require_empty(folder)
        checked: list[CheckedArtifact] = []

        def tell(artifact: CheckedArtifact) -> None:
            checked.append(artifact)
            view.say(artifact.line)

        with view.step("fetching and verifying artifacts"):
            artifacts = fetch_project(connection, account, tell)
        parsed = task.read(artifacts)
        for note in parsed.notes:
            view.say(f"! {note}", style="yellow")
        where = {"network": connection.network.name, "program_id": str(connection.network.program_id)}
        branch = lay_out(folder, account, parsed, artifacts, where)
    view.say(f"✓ work tree: {folder}, on branch {branch}")
    with view.step("checking this machine"):
        facts = readiness.read(parsed, home)
    try:
        results = _set_up(folder, parsed, Path(facts.data_folder), yes, setup_minutes * 60, view, as_json)
    except KeyboardInterrupt:
        view.say(f"\nStopped. {folder} is complete; you can run the setup commands there.")
        raise SystemExit(130) from None
    if any(result.state in ("done", "failed") for result in results):
        facts = readiness.read(parsed, home)
    points = readiness.points(facts, parsed)
    wanted = parsed.benchmark.data_snapshot
    trust = not facts.own_harness and (facts.data is None or wanted not in (None, facts.data))
    command = _next(home, network, irys, project, trust=trust)
    document = {
        "project": project,
        "network": network,
        "folder": str(folder),
        "branch": branch,
        "artifacts": [asdict(artifact) for artifact in checked],
        "notes": list(parsed.notes),
        "machine": [asdict(point) for point in points],
        "setup": [asdict(result) for result in results],
        "data_folder": facts.data_folder,
        "next": command,
    }
    answer(as_json, document, _text(folder, branch, points, results, command))
    if any(result.state == "failed" for result in results):
        raise SystemExit(1)


def _set_up(folder: Path, parsed: Task, cache: Path, yes: bool, seconds: float, view: View, quiet: bool) -> list[SetUp]:
    """Show the setup commands, ask about each, run those agreed to."""
    from miner.setup import prepare

    wanted = prepare.commands(parsed.protocol.raw)
    if wanted and not quiet:
        view.say("\nThe project wants to run these commands, with your user's rights:", style="bold")
        for number, command in enumerate(wanted, 1):
            view.say(f"  {number}. {command.text}" + (f"  ({command.problem})" if command.problem else ""))

    def agrees(command: SetupCommand) -> bool:
        return yes or (not quiet and agrees_to(f"Run `{command.text}` in {folder}?"))

    def step(command: SetupCommand) -> Any:
        return view.step(f"running {command.text}")

    results = []
    for result in prepare.set_up(folder, parsed, cache, agrees, seconds, step):
        results.append(result)
        view.say(f"  {result.command}: {result.state}" + (f", {result.detail}" if result.detail else ""))
    return results


def _next(home: Path, network: str, irys: str | None, project: int, *, trust: bool) -> str:
    from chain.connection.config import default_home

    options = f" --network {network}" if network != "embedded" else ""
    options += f" --irys {irys}" if irys else ""
    options += f" --home {home}" if home != default_home() else ""
    options += " --trust-harness" if trust else ""
    return shown(f"miner run --project {project}{options}")


def _text(folder: Path, branch: str, points: list[Check], results: list[SetUp], command: str) -> str:
    lines = [f"{folder}, on branch {branch}", "", "this machine:"]
    lines += [f"  {point.line}" for point in points]
    left = [result for result in results if result.state != "done"]
    if left:
        lines += ["", "setup commands still to run (in that folder):"]
        lines += [f"  {result.command}  ({result.state})" for result in left]
    return "\n".join([*lines, "", "next:", f"  {command}"])
