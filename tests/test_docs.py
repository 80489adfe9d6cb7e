"""The documents: what they name exists, and the commands they show are the commands there are."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from chain.commands.main import main as chain
from chain.commands.options import Commands
from miner.commands.main import main as miner
from verifier.cli import main as verifier

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=lambda path: path.relative_to(ROOT).as_posix())
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
COMMANDS: dict[str, click.Command] = {"chain": chain, "miner": miner, "verifier": verifier}
FOLDERS = "chain|common|configs|docs|miner|tests|trainer|verifier"


@pytest.mark.parametrize("name", NAMES)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    path = ROOT / name
    text = path.read_text()
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", text):
        target = path.parent / link if link else path
        if not target.exists():
            missing.append(link)
        elif anchor and anchor[1:] not in anchors(target):
            missing.append(f"{link}{anchor}")
    if name != "CHANGELOG.md":  # which names what is gone as well
        paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]+|prepare\.py|pyproject\.toml)`", text)
        missing += [named for named in paths if not (ROOT / named).exists()]
    assert not missing


def test_the_readme_is_short_and_has_a_picture() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700
    assert "![" in text


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def shown(text: str) -> list[list[str]]:
    """The commands of ours in a document's code, each as its words up to a comment."""
    lines = re.findall(r"^    (?:uv run )?((?:chain|miner|verifier) .+)$", text, re.MULTILINE)
    lines += re.findall(r"`(?:uv run )?((?:chain|miner|verifier) [^`]+)`", text)
    found = []
    for line in lines:
        words = shlex.split(re.sub(r"\.(?=$|,)", "", line), comments=True, posix=True)
        found.append([word.strip("[]") for word in words])
    return found


def alternatives(word: str) -> list[str]:
    return word.split("|")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])
def test_commands_are_the_commands_there_are(name: str) -> None:
    for words in shown((ROOT / name).read_text()):
        for command in leaves(COMMANDS[words[0]], words[1:]):
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            asked = {word.split("=")[0] for word in words if word.startswith("--")}
            assert asked <= known | {"--help", "--version"}, (words, asked - known)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("README", "docs/"))])
def test_options_are_the_options_there_are(name: str) -> None:
    def options(command: click.Command) -> set[str]:
        own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        return own.union(*(options(child) for child in getattr(command, "commands", {}).values()))

    known = set().union(*map(options, COMMANDS.values())) | {"--help"}
    foreign = {"--extra", "--url", "--check", "--size"}  # uv's, Solana's, our scripts'
    for script in (ROOT / "tests" / "attacks" / "run.py", *(ROOT / "tests" / "benchmarks").glob("bench_*.py")):
        foreign |= set(re.findall(r'"(--[a-z-]+)"', script.read_text()))
    named = set(re.findall(r"`(--[a-z][a-z-]*)", (ROOT / name).read_text()))
    assert named <= known | foreign


def leaves(command: click.Command, words: list[str]) -> list[click.Command]:
    """The commands that a line may mean: `claim|release` are two."""
    if not isinstance(command, Commands) or not words or words[0].startswith("--"):
        return [command]
    found = []
    for word in alternatives(words[0]):
        assert word in command.all_commands(), words
        found += leaves(command.all_commands()[word], words[1:])
    return found


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 700


def test_the_map_has_every_room() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    drawn = (ROOT / "ARCHITECTURE.md").read_text()
    for contract in contracts:
        if "containers" not in contract:
            continue
        (package,) = contract["containers"]
        layers = " → ".join(layer for layer in contract["layers"] if layer != "errors")
        (found,) = re.findall(rf"^    {package}/ +(.*(?:\n {{16}}.*)*)$", drawn, re.MULTILINE)
        line = " ".join(found.split())
        assert line == layers
        rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        rooms = rooms or {path.stem for path in (ROOT / package).glob("[!_]*.py")}  # one floor
        assert set(re.split(r" → | \| ", line)) == rooms
