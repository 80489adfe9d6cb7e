"""The `verifier` command: check proposals, settle them, audit attestations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import Commands, agrees, answer, common, open_connection, stoppable, versioned

if TYPE_CHECKING:
    from verifier.check import CheckResult

EXIT = {"approve": 0, "reject": 3, "release": 4}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@versioned
def main() -> None:
    """Verify OpenResearch proposals: replay them here, reach a verdict, attest to it, settle.

    Exit status of a check: 0 approve, 3 reject, 4 release, 1 refused, 2 wrong usage.
    """


def _how(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--keypair", metavar="NAME|FILE", help="Verifier's wallet. [default: the home's 'verifier']"),
        click.option(
            "--policy",
            "policy_file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="TOML file that changes the policy; the attestation records it.",
        ),
        click.option("--trust-harness", is_flag=True, help="Let the project's own prepare.py prepare its data here."),
        click.option("--irys", metavar="URL", envvar="ARMLX_IRYS", help="Irys node, if not the network's own."),
    ]
    for option in reversed(options):
        command = option(command)
    return common(command)


@main.command()
@_how
@click.argument("proposal", type=click.IntRange(min=0), required=False)
@click.option("--settle", is_flag=True, help="Claim the review, then approve, reject or release on chain.")
@click.option("--yes", is_flag=True, help="Do not ask before settling.")
@click.option(
    "--candidate",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Check this local train.py instead of a proposal.",
)
@click.option("--project", type=click.IntRange(min=0), default=0, show_default=True, help="Project of --candidate.")
@click.option(
    "--without-isolation-for-a-dry-run",
    "unconfined",
    is_flag=True,
    help="Run the candidate's code unconfined on this machine. Never settles; the attestation says so.",
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
    """Replay PROPOSAL against the incumbent on this machine and print the verdict.

    The candidate runs in a sandbox without network, home or validation data; its model is frozen, scored
    and probed by code of ours. With --settle the verdict is carried out on chain.
    """
    if (proposal is None) == (candidate is None):
        raise click.UsageError("Name a proposal, or a train.py with --candidate.")
    if settle and (unconfined or candidate):
        raise click.UsageError("Only a proposal that ran in the sandbox can be settled.")
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
            if not settle:
                checked = checks.check_proposal(connection, found_proposal, key, rules, view, **how)
                _finish(checked, None, as_json, home, connection.network.name)
            if not yes and not agrees(f"Settle proposal {proposal} on {network} with {key.pubkey()}?"):
                raise click.UsageError("Settling signs with your key: give --yes to agree to it.")
            folder = checks.folder_of(home, connection.network.name, str(proposal))
            done = settling.settle(
                connection,
                proposal,
                key,
                folder,
                checks.ready,
                lambda current: checks.check_proposal(
                    connection, current, key, rules, view, trust_harness=trust_harness
                ),
                view.say,
            )
        except KeyboardInterrupt:
            view.say("\nstopped; the same command goes on from here")
            raise SystemExit(130) from None
        if done.checked is None:
            answer(as_json, {"proposal": proposal, "status": done.status.name.lower(), "note": done.note}, done.note)
            return
        _finish(done.checked, show.settled(done), as_json, home, connection.network.name)


def _finish(checked: CheckResult, settlement: dict[str, Any] | None, as_json: bool, home: Path, network: str) -> None:
    from verifier import show
    from verifier.check import folder_of

    name = (
        str(checked.proposal.id) if checked.proposal else f"local-{checked.case.code_hash[:16]}" if checked.case else ""
    )
    path = folder_of(home, network, name) / "attestation.json"
    document = show.as_json(checked) | {"attestation": str(path), "settlement": settlement}
    answer(as_json, document, show.text(checked, path, settlement))
    raise SystemExit(EXIT[checked.verdict.kind.value])


@main.command()
@_how
@click.option("--project", type=click.IntRange(min=0), default=0, show_default=True, help="Project to serve.")
@click.option("--once", is_flag=True, help="Stop when nothing is pending.")
@click.option("--every", default=30.0, show_default=True, type=click.FloatRange(1), help="Seconds between looks.")
@click.option("--retries", default=3, show_default=True, type=click.IntRange(1), help="Tries per proposal.")
@click.option("--yes", is_flag=True, help="Agree to settling with your key; required.")
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
    """Check and settle all pending proposals of a project, oldest first, until Ctrl-C."""
    if not yes:
        raise click.UsageError("This settles with your key unattended: give --yes to agree to it.")
    stoppable()
    from chain.connection.opening import VERIFIER
    from common.terminal import View
    from verifier import policy
    from verifier.serve import serve

    rules = policy.load(policy_file)
    view = View(quiet=as_json)
    with open_connection(network, home, irys) as connection:
        key = connection.wallet(keypair, VERIFIER)
        try:
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
            )
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        answer(
            as_json, results, "\n".join(f"proposal {r['proposal']}: {r['note']}" for r in results) or "nothing pending"
        )


@main.command()
@common
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--offline", is_flag=True, help="Do not ask the chain.")
@click.option(
    "--code", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The code archive, to compare."
)
@click.option(
    "--log", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The benchmark log, to compare."
)
def audit(
    home: Path, network: str, as_json: bool, file: Path, offline: bool, code: Path | None, log: Path | None
) -> None:
    """Check an attestation: its signature, its hashes against the chain, and that its verdict follows.

    Exit status 0 where nothing contradicts it, 1 otherwise.
    """
    from verifier.audit import audit as examine
    from verifier.audit import passed

    files = {name: path.read_bytes() for name, path in (("code", code), ("log", log)) if path}
    data = file.read_bytes()
    if offline:
        points, predicate = examine(data, None, files)
    else:
        with open_connection(network, home) as connection:
            points, predicate = examine(data, connection.client, files)
    marks = {True: "yes", False: "NO", None: "not asked"}
    text = "\n".join(f"{marks[p.holds]:<10} {p.question}: {p.detail}" for p in points)
    document = {
        "passed": passed(points),
        "points": [{"question": p.question, "holds": p.holds, "detail": p.detail} for p in points],
        "verdict": predicate["verdict"],
    }
    answer(as_json, document, text)
    raise SystemExit(0 if passed(points) else 1)


if __name__ == "__main__":
    main()
