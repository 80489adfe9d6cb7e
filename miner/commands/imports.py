"""`miner import`: other people's results as hints for what to try first."""

from __future__ import annotations

from pathlib import Path

import click

from chain.commands.options import Command, answer, home_option, json_option


@click.command("import", cls=Command, examples=("miner import results.tsv", "miner import forks/*.tsv --json"))
@click.argument(
    "files", metavar="FILES", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@home_option
@json_option
def import_results(files: tuple[Path, ...], home: Path, as_json: bool) -> None:
    """Take in other clients' results.tsv as hints.

    Sessions that start from now on try earlier what won there, and later what lost. Nobody has checked these numbers:
    they weigh a quarter of an approved change, and never replace a trial. The copies are in the folder `imported`
    of the home; delete one to forget it.
    """
    from common.text import counted
    from miner.session import others

    taken = [others.take(home, file) for file in files]
    document = [{"file": str(found.path), "rows": found.rows, "hints": found.hints} for found in taken]
    answer(
        as_json,
        document,
        "\n".join(f"{found.path}: {counted(found.rows, 'row')}, {counted(found.hints, 'hint')}" for found in taken),
    )
