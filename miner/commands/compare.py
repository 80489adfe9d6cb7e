"""`miner compare`: two sessions, or two train.py, side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chain.commands.options import Command, answer, home_to_read_option, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from miner.journal.journal import Session
    from miner.journal.sessions import SessionFolder
    from miner.proposers.base import Tried


@click.command(
    cls=Command,
    examples=(
        "miner compare embedded-0-6poQZuQH devnet-0-6poQZuQH",
        "miner compare old/train.py new/train.py --output comparison.html",
    ),
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Also write an HTML page."
)
@home_to_read_option
@json_option
def compare(first: str, second: str, output: Path | None, home: Path, as_json: bool) -> None:
    """Compare two sessions, or two train.py files.

    Of sessions (names as in `miner status`, or folders): gains, what each found, what both tried, and which
    hyperparameters mattered. Of files: the hyperparameters that differ, and how much better B is where a session on
    this machine measured both. Nothing is run and the chain is not asked.
    """
    from common.files import write_atomic
    from miner.report import compare as comparing
    from miner.report import compare_text as texts
    from miner.report import sheets
    from trainer.errors import TrainerError

    files = [Path(name).is_file() for name in (first, second)]
    document: dict[str, Any]
    if all(files):
        known = [(entry.name, *read) for entry in _all(home) if (read := _read(entry)) is not None]
        pair = comparing.scripts(_script(first), _script(second), known)
        shown, notes, document = texts.of_scripts(pair), list[str](), asdict(pair)
    elif any(files):
        raise TrainerError("One of the two is a file and the other a session.", "Compare two of a kind.")
    else:
        both = comparing.sessions(*(_side(home, name) for name in (first, second)))
        shown, notes = texts.of_sessions(both), texts.notes(both)
        document = {
            "apart": both.apart,
            "pairs": [asdict(pair) for pair in both.pairs],
            **{
                name: {
                    "session": one.name,
                    "summary": one.totals.as_json(),
                    "gain_per_trial": one.per_trial,
                    "finds": [asdict(find) for find in one.finds],
                    "weights": [asdict(weight) for weight in one.weights],
                    "about": asdict(one.about),
                }
                for name, one in (("a", both.a), ("b", both.b))
            },
        }
    if output is not None:
        page = sheets.page(f"{Path(first).name} and {Path(second).name}", shown, notes)
        try:
            write_atomic(output, page.encode())
        except OSError as error:
            raise click.ClickException(f"Cannot write {output}: {error.strerror}. Choose another file.") from None
    tail = "" if output is None else f"\n\n{output}"
    answer(as_json, {**document, "page": str(output) if output else None}, texts.text(shown, notes) + tail)


def _all(home: Path) -> Sequence[SessionFolder]:
    from miner.journal import sessions

    return sessions.find(home)


def _side(home: Path, name: str) -> Any:
    """A session's part of a comparison, by its name in the home or its folder."""
    from miner.journal import about, sessions
    from miner.report import compare as comparing
    from trainer.errors import TrainerError

    folder = Path(name)
    if (folder / sessions.JOURNAL).is_file():
        entry = sessions.SessionFolder(folder, "", 0, "", "")
    else:
        entry = sessions.choose(home, session=name)
    read = _read(entry)
    if read is None:
        raise TrainerError(f"The session {entry.name} cannot be read.", "See `miner status`.")
    return comparing.side(entry.name, about.load(entry.folder), *read)


def _read(entry: SessionFolder) -> tuple[Session, list[Tried]] | None:
    """A session with its trials and their code; None if it is damaged or its work tree is gone."""
    from miner.journal import trials
    from trainer.errors import TrainerError

    try:
        return trials.read(entry)
    except TrainerError:
        return None


def _script(name: str) -> tuple[str, str]:
    from trainer.errors import TrainerError

    try:
        return name, Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainerError(f"Cannot read {name}: {error}.", "Choose a train.py.") from None
