"""Every help page of the three programs, as an 80-column terminal shows it."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from chain.commands import options
from chain.commands.main import main as chain
from chain.commands.options import Commands, Number, Whole
from miner.commands.main import main as miner
from verifier.cli import main as verifier

PROGRAMS = {"chain": chain, "miner": miner, "verifier": verifier}
_EVERYWHERE = (
    r"not to be had|could not be had|cannot stand there|came to no end|comes to no end|is told of|are told of"
    r"|goes on from|by lot\b|\bfor instance\b|(?<!there )is no (?:time|number|file|folder|address|text|Python|JSON)\b"
    r"|(?<!means the )(?<!are )\ball the same\b"
)
TRANSLATED = re.compile(_EVERYWHERE, re.IGNORECASE)  # in no message and no docstring
STILTED = re.compile(  # nor these on a help page
    _EVERYWHERE + r"|proves nothing|, else |\bwere expected|\bin force here\b|\bconstants\b|\bracing\b|\bfresh text\b",
    re.IGNORECASE,
)
SENDS = "--max-spend"  # and --priority-fee: only commands that send transactions have them
READ_ONLY = {
    "chain project list", "chain project show", "chain proposal list", "chain proposal show", "chain wallet show",
    "chain wallet airdrop", "chain token balance", "chain irys price", "chain irys balance", "chain irys upload",
    "chain irys get", "chain watch", "miner init", "verifier audit", "verifier report",
}  # fmt: skip


def _walk(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80)
    yield context
    if isinstance(command, Commands):
        for child, sub in command.all_commands().items():
            yield from _walk(sub, child, context)


PAGES = [context for name, root in PROGRAMS.items() for context in _walk(root, name)]
LEAVES = [context for context in PAGES if not isinstance(context.command, click.Group)]


def _path(context: click.Context) -> str:
    return context.command_path


@pytest.mark.parametrize("context", PAGES, ids=_path)
def test_a_page_fits_and_reads_well(context: click.Context) -> None:
    page = context.get_help()
    assert [line for line in page.splitlines() if len(line) > 80] == []
    assert "..." not in page.replace("[ARGS]...", "")  # no first line is cut in a list of commands
    assert STILTED.findall(page) == []


@pytest.mark.parametrize("room", ["chain", "common", "miner", "trainer", "verifier", "prepare.py"])
def test_no_message_reads_as_if_translated(room: str) -> None:
    root = Path(__file__).parents[1] / room
    for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = TRANSLATED.search(" ".join(node.value.split()))
                assert found is None, f"{path}:{node.lineno}: {found and found[0]}"


@pytest.mark.parametrize("context", PAGES, ids=_path)
def test_a_first_line_is_one_whole_sentence(context: click.Context) -> None:
    first = (context.command.help or "").split("\n\n")[0]
    assert "\n" not in first
    assert first[:1].isupper()
    assert first.endswith(".")


@pytest.mark.parametrize("context", LEAVES, ids=_path)
def test_a_command_has_examples_of_itself_that_parse(context: click.Context) -> None:
    command = context.command
    assert isinstance(command, options.Command)
    lines = " ".join(command.examples).replace("\\ ", "").split(context.command_path)
    assert len(lines) > 1
    assert lines[0] == ""
    known = {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    for line in lines[1:]:
        assert [word for word in shlex.split(line) if word.startswith("-") and word not in known] == []
    assert "\nExamples:\n" in context.get_help()


@pytest.mark.parametrize("context", LEAVES, ids=_path)
def test_options_stand_under_headings_own_ones_first(context: click.Context) -> None:
    headings = re.findall(r"^(\S.*):$", context.get_help(), re.MULTILINE)
    order = ["Examples", "Options", "When to stop", "Proposer options", "Executor options", "Network options",
             "Wallet options", "General options"]  # fmt: skip
    assert headings == [heading for heading in order if heading in headings]
    assert headings[-1] == "General options"
    own = context.get_help().partition("\nOptions:\n")[2].partition("\n\n")[0]
    assert re.findall(r"--(?:network|rpc-url|commitment|irys|keypair|passphrase-file|home|json|help)\b  ", own) == []


@pytest.mark.parametrize("context", LEAVES, ids=_path)
def test_one_way_to_name_a_project_a_key_and_an_irys_node(context: click.Context) -> None:
    shown = {option.opts[0]: option.metavar for option in context.command.params if isinstance(option, click.Option)}
    for name, metavar in {"--project": "ID", "--keypair": "NAME|FILE", "--irys": "URL", "--max-spend": "SOL"}.items():
        assert shown.get(name, metavar) == metavar
    assert (SENDS in shown) == ("--priority-fee" in shown)
    if SENDS in shown:
        assert "--network" in shown
        assert "--passphrase-file" in shown


@pytest.mark.parametrize("context", LEAVES, ids=_path)
def test_numbers_are_of_our_own_kinds(context: click.Context) -> None:
    """click's own kinds say "is not a valid integer range"."""
    kinds = {type(parameter.type) for parameter in context.command.params}
    assert not kinds & {click.IntRange, click.FloatRange}


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Whole(min=1), "x", "give a whole number of at least 1, not 'x'."),
        (Whole(min=1), "0", "give a whole number of at least 1, not '0'."),
        (Whole(0, 65533), "1.5", "give a whole number of at least 0 and at most 65,533, not '1.5'."),
        (Number(min=0, min_open=True), "0", "give a number above 0, not '0'."),
        (Number(min=0, min_open=True, max=1440), "1441", "give a number above 0 and at most 1,440, not '1441'."),
        (Number(1), "nan", "give a number of at least 1, not 'nan'."),
        (Number(1), "1\x1b[2J", "give a number of at least 1, not '1[2J'."),
        (Number(max=3), "inf", "give a number of at most 3, not 'inf'."),
        (Whole(), "", "give a whole number, not ''."),
    ],
)
def test_a_number_out_of_bounds_is_told_with_them(kind: click.ParamType[Any], given: str, said: str) -> None:
    with pytest.raises(click.BadParameter) as refusal:
        kind.convert(given, None, None)
    assert refusal.value.message == said


def test_commands_that_send_nothing_offer_no_fee() -> None:
    without = {_path(context) for context in LEAVES if "--max-spend" not in context.get_help()}
    assert without >= READ_ONLY
    assert {_path(context) for context in LEAVES} >= READ_ONLY


@pytest.mark.parametrize("name", PROGRAMS)
def test_shell_completion_as_the_help_names_it(name: str) -> None:
    page = next(context for context in PAGES if context.command_path == name).get_help()
    assert f'eval "$(_{name.upper()}_COMPLETE=bash_source {name})"' in " ".join(page.split())
    root = PROGRAMS[name]
    start = f"from {root.callback.__module__} import main; main(prog_name={name!r})"
    words = {f"_{name.upper()}_COMPLETE": "bash_complete", "COMP_WORDS": f"{name} ", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", start], env=os.environ | words, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.split()) == {f"plain,{command}" for command in root.all_commands()}
