"""The `verifier` program: check proposals, settle them, audit attestations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands import irys_option, keypair_option, project_option
from chain.commands.doctor import doctor
from chain.commands.options import (
    Number,
    Whole,
    agrees,
    answer,
    common,
    open_connection,
    program,
    reading_records,
    stoppable,
)
from common.errors import Refused
from common.waking import waking

if TYPE_CHECKING:
    from chain.connection.opening import Connection
    from chain.program.accounts import Project, Proposal
    from common.checks import Check
    from common.terminal import View
    from trainer.project.task import Task
    from verifier.check import CheckResult

_PATIENCE = 24 * 3600.0  # seconds that another verifier on this machine may need for the same proposal
UNASKED = 3  # exit status of an audit that nothing contradicts and that did not ask everything
EXIT = {"approve": 0, "reject": 3, "release": 4}


@program("verifier")
def main() -> None:
    """Verify OpenResearch proposals: measure them on this machine, attest, settle.

    Exit status of a check: 0 approve, 3 reject, 4 release, 1 refused, 2 wrong usage.
    """


def _examine(home: Path, view: View) -> Iterator[Check]:
    from trainer.doctor import examine

    return examine(home, verifier=True, view=view)


main.add_command(doctor("verifier", "verifier", _examine))


def _how(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        keypair_option("verifier"),
        click.option(
            "--policy",
            "policy_file",
            metavar="FILE",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Read policy changes from a TOML file. The attestation records them.",
        ),
        click.option("--trust-harness", is_flag=True, help="Run the project's own prepare.py to prepare its data."),
        irys_option,
    ]
    for option in reversed(options):
        command = option(command)
    return common(command)


@main.command(
    examples=(
        "verifier check 0",
        "verifier check 0 --settle --network devnet",
        "verifier check --candidate train.py --project 0",
    )
)
@_how
@click.argument("proposal", type=Whole(min=0), required=False)
@click.option("--settle", is_flag=True, help="Claim the review, then approve, reject or release on chain.")
@click.option("--yes", is_flag=True, help="Settle without asking.")
@click.option(
    "--candidate",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check a local train.py instead of a proposal.",
)
@project_option(what="Project that --candidate is for.")
@click.option(
    "--no-sandbox",
    "unconfined",
    is_flag=True,
    help="Run the candidate's code without a sandbox. It can then read your files and keys and use your network. "
    "The attestation says so, and the result cannot be settled.",
)
def check(
    home: Path,
    network: str,
    as_json: bool,
    keypair: str | None,
    policy_file: Path | None,
    trust_harness: bool,
    irys: str | None,
    proposal: int | None,
    settle: bool,
    yes: bool,
    candidate: Path | None,
    project: int,
    unconfined: bool,
) -> None:
    """Measure a proposal on this machine and print the verdict.

    The candidate runs against the on-chain best, in a sandbox without network, home folder or validation data; its
    model is frozen and scored by this program's own code. With --settle, the verdict is carried out on chain.

    Exit status: 0 approve, 3 reject, 4 release, 1 refused, 2 wrong usage.
    """
    if (proposal is None) == (candidate is None):
        raise click.UsageError("Give a proposal ID, or a train.py with --candidate.")
    if settle and (unconfined or candidate):
        raise click.UsageError("--settle needs a proposal that runs in the sandbox.")
    with waking(quiet=as_json):
        from chain.connection.opening import VERIFIER
        from common.terminal import View
        from verifier import check as checks
        from verifier import policy, show
        from verifier import settle as settling

    rules = policy.load(policy_file)
    view = View(quiet=as_json)
    with open_connection(network, home, irys) as connection:
        key = connection.wallet(keypair, VERIFIER)
        how = {"isolated": not unconfined, "trust_harness": trust_harness}
        try:
            if candidate is not None:
                source = candidate.read_bytes()
                found = connection.client.project(project)
                checked = checks.check_candidate(connection, found, source, key, rules, view, **how)
                _finish(checked, None, as_json, home, connection.network.name)
            assert proposal is not None
            found_proposal = connection.client.proposal(proposal)
            folder = checks.folder_of(home, connection.network.name, str(proposal))
            if not settle:
                if told := show.already(found_proposal):
                    view.say(told, style="yellow")
                with settling.alone(folder, view.step, _PATIENCE):
                    checked = checks.check_proposal(connection, found_proposal, key, rules, view, **how)
                _finish(checked, None, as_json, home, connection.network.name)
            if not yes and not agrees(f"Settle proposal {proposal} on {network} with {key.pubkey()}?"):
                raise click.UsageError("This command signs a settlement with your key. Add --yes to allow that.")
            done = settling.settle(
                connection,
                proposal,
                key,
                folder,
                lambda current: checks.prepare(connection, current, rules),
                lambda current: checks.check_proposal(
                    connection, current, key, rules, view, trust_harness=trust_harness
                ),
                view.say,
                wait=_PATIENCE,
                step=view.step,
            )
        except KeyboardInterrupt:
            view.say("\nStopped. Run the same command to resume.")
            raise SystemExit(130) from None
        if done.checked is None:
            answer(as_json, {"proposal": proposal, "status": done.status.name.lower(), "note": done.note}, done.note)
            return
        _finish(done.checked, show.settled(done), as_json, home, connection.network.name)


def _finish(checked: CheckResult, settlement: dict[str, Any] | None, as_json: bool, home: Path, network: str) -> None:
    from verifier import show
    from verifier.check import file_of, folder_of

    name = (
        str(checked.proposal.id) if checked.proposal else f"local-{checked.case.code_hash[:16]}" if checked.case else ""
    )
    path = file_of(folder_of(home, network, name), checked.attestation)
    document = show.as_json(checked) | {"attestation": str(path), "settlement": settlement}
    answer(as_json, document, show.text(checked, path, settlement))
    raise SystemExit(EXIT[checked.verdict.kind.value])


@main.command(examples=("verifier run --once", "verifier run --project 0 --network devnet --yes"))
@_how
@project_option(what="Project to verify.")
@click.option("--once", is_flag=True, help="Exit when nothing is pending.")
@click.option("--every", metavar="SECONDS", default=30.0, show_default=True, type=Number(1), help="Time between polls.")
@click.option(
    "--retries",
    metavar="N",
    default=3,
    show_default=True,
    type=Whole(1),
    help="Attempts per proposal with --once.",
)
@click.option("--yes", is_flag=True, help="Allow settling with your key without asking.")
def run(
    home: Path,
    network: str,
    as_json: bool,
    keypair: str | None,
    policy_file: Path | None,
    trust_harness: bool,
    irys: str | None,
    project: int,
    once: bool,
    every: float,
    retries: int,
    yes: bool,
) -> None:
    """Check and settle all pending proposals until Ctrl-C.

    Proposals are taken oldest first, each as `verifier check --settle` does it. You are asked once whether settlements
    may be signed with your key; without a terminal, add --yes.
    """
    if not yes and not agrees("Sign settlements with your key, without asking again?"):
        raise click.UsageError("This command signs settlements without asking. Add --yes to allow that.")
    stoppable()
    with waking(quiet=as_json):
        from chain.connection.opening import VERIFIER
        from common.terminal import View
        from verifier import policy
        from verifier.serve import serve

    rules = policy.load(policy_file)
    view = View(quiet=as_json)
    with open_connection(network, home, irys) as connection:
        key = connection.wallet(keypair, VERIFIER)
        with _notifying(connection, project, view) as tell:
            results = serve(
                connection,
                project,
                key,
                rules,
                view,
                once=once,
                every=every,
                retries=retries,
                trust_harness=trust_harness,
                tell=tell,
            )
        answer(
            as_json,
            results,
            "\n".join(f"proposal {r['proposal']}: {r['note']}" for r in results) or "No proposal is pending.",
        )


@contextmanager
def _notifying(connection: Connection, project: int, view: View) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What tells the owner's channels, and at the end why it ended; Ctrl-C is exit status 130."""
    from common.notify import Notifier, channels
    from verifier.serve import words

    settings, where = connection.settings, {"project": project, "network": connection.network.name}
    found = channels(settings["notify_command"], settings["notify_webhook"], desktop=settings["notify_desktop"])
    with Notifier(found, lambda text: view.say(text, style="yellow")) as notifier:

        def tell(event: Mapping[str, Any]) -> None:
            notifier.tell(words(event), {**event, **where})

        reason = "it failed"
        try:
            yield tell
            reason = "nothing is pending"
        except KeyboardInterrupt:
            reason = "interrupted"
            raise SystemExit(130) from None
        except Refused as error:
            reason = error.problem
            raise
        finally:
            tell({"event": "stop", "reason": reason})


@main.command(
    examples=("verifier audit attestation.json", "verifier audit attestation.json --offline --log benchmark.log")
)
@reading_records
@irys_option
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--offline", is_flag=True, help="Do not query the chain.")
@click.option(
    "--code",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Code archive that was judged. [default: the proposal's]",
)
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Benchmark log to compare its hash with.",
)
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Policy it should have been judged by. [default: this client's]",
)
def audit(
    home: Path,
    network: str,
    irys: str | None,
    as_json: bool,
    file: Path,
    offline: bool,
    code: Path | None,
    log: Path | None,
    policy_file: Path | None,
) -> None:
    """Check an attestation's signature, hashes and verdict.

    The hashes are compared with the chain, and the verdict is derived again from the recorded measurements. The exit
    status is 0 if nothing contradicts the attestation and everything that could be asked was, 1 if something
    contradicts it, 3 if something was left unasked (see "unchecked").
    """
    from verifier import policy
    from verifier.audit import audit as examine
    from verifier.audit import complete, passed

    rules = policy.load(policy_file)
    files = {name: path.read_bytes() for name, path in (("code", code), ("log", log)) if path}
    data = file.read_bytes()
    if offline:
        points, predicate = examine(data, None, files, policy=rules)
    else:
        with open_connection(network, home, irys) as connection:
            read, fetch = partial(_task, connection), partial(_code, connection)
            points, predicate = examine(data, connection.client, files, read, rules, fetch)
    marks = {True: "yes", False: "NO", None: "unchecked"}
    text = "\n".join(f"{marks[p.holds]:<10} {p.question}: {p.detail}" for p in points)
    document = {
        "passed": passed(points),
        "complete": complete(points),
        "points": [{"question": p.question, "holds": p.holds, "detail": p.detail} for p in points],
        "verdict": predicate["verdict"],
    }
    answer(as_json, document, text)
    raise SystemExit(1 if not passed(points) else 0 if complete(points) else UNASKED)


@main.command(examples=("verifier report", "verifier report --project 0 --html page.html", "verifier report --json"))
@reading_records
@project_option(what="Only this project. [default: all]", default=None, show_default=False)
@click.option("--offline", is_flag=True, help="Do not query the chain.")
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the report as one self-contained HTML file.",
)
def report(home: Path, network: str, as_json: bool, project: int | None, offline: bool, html_file: Path | None) -> None:
    """Show what this verifier has judged, and what waits.

    Verdicts, their reasons and days, machine time and fees, what an interruption left over, and the queue on chain.
    Nothing is locked or changed.
    """
    from dataclasses import replace

    from chain.errors import ChainError
    from common.files import write_atomic
    from common.text import without_key
    from verifier import report as reports

    found = reports.gather(home, without_key(network), project)
    if not offline:
        try:
            with open_connection(network, home, None) as connection:
                client = connection.client
                which = [project] if project is not None else sorted({entry.project for entry in found.checks})
                queue = [entry for number in which for entry in reports.waiting(client.proposals(number))]
                found = replace(found, queue=queue, fees=reports.fees(client, found.signatures))
        except ChainError as error:
            found = replace(found, note=f"The chain cannot be read: {error.problem}")
    if html_file:
        from verifier import report_page

        try:
            write_atomic(html_file, report_page.page(found))
        except OSError as error:
            raise click.ClickException(f"Cannot write {html_file}: {error.strerror}. Choose another file.") from None
        click.echo(f"page  {html_file}", err=True)
    answer(as_json, reports.as_json(found), reports.text(found))


def _code(connection: Connection, proposal: Proposal) -> bytes:
    return connection.fetch(proposal.code_irys_id, proposal.code_hash, proposal.miner, "code archive")


def _task(connection: Connection, project: Project) -> Task:
    from chain.projects.artifacts import fetch_project
    from trainer.project import task

    return task.read(fetch_project(connection, project))


if __name__ == "__main__":
    main()
