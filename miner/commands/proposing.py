"""The options of `miner run` that choose and set up proposers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from miner.proposers.base import Proposer
    from miner.proposers.mix import Mixture

NAMES = ("tune", "agent", "llm", "patches")


@dataclass(frozen=True, slots=True)
class Proposing:
    """What was chosen on the command line; the defaults are those of `miner run`."""

    proposer: str = "tune"
    agent_command: str | None = None
    agent_minutes: float = 20.0
    llm_url: str | None = None
    llm_model: str | None = None
    llm_max_calls: int | None = None
    llm_max_tokens: int | None = None
    patches: Path | None = None

    def build(self, *, seed: int, files: Mapping[str, bytes], say: Callable[[str], None]) -> Mixture:
        """The proposers on a project's snapshot `files`; TrainerError where an option is missing or does not fit."""
        from miner.proposers import mix

        makers: dict[str, Callable[[], Proposer]] = {
            "tune": lambda: self._tune(seed),
            "agent": lambda: self._agent(files),
            "llm": lambda: self._llm(say),
            "patches": lambda: self._patches(say),
        }
        return mix.parse(self.proposer, makers, seed=seed, say=say)

    def check(self) -> None:
        """Refuse what does not fit before any long work begins."""
        self.build(seed=0, files={}, say=lambda _: None)

    @staticmethod
    def _tune(seed: int) -> Proposer:
        from miner.proposers.tune import Tune

        return Tune(seed)

    def _agent(self, files: Mapping[str, bytes]) -> Proposer:
        from miner.proposers.agent import Agent

        return Agent(_needed(self.agent_command, "agent", "--agent-command"), files, self.agent_minutes)

    def _llm(self, say: Callable[[str], None]) -> Proposer:
        from miner.proposers.llm import Caps, Llm

        url, model = _needed(self.llm_url, "llm", "--llm-url"), _needed(self.llm_model, "llm", "--llm-model")
        return Llm(url, model, Caps(self.llm_max_calls, self.llm_max_tokens), say)

    def _patches(self, say: Callable[[str], None]) -> Proposer:
        from miner.proposers.patches import Patches

        return Patches(Path(_needed(self.patches, "patches", "--patches")), say)


def _needed(value: Any, name: str, option: str) -> Any:
    if value is None:
        raise click.UsageError(f"--proposer {name} needs {option}.")
    return value


def proposing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed to the command as one argument `proposing`."""

    @functools.wraps(command)
    def collected(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Proposing)}
        return command(*args, proposing=Proposing(**chosen), **given)

    options = [
        click.option(
            "--proposer",
            default="tune",
            show_default=True,
            metavar="SPEC",
            help="Who invents candidates: tune (turns constants, offline), agent, llm, patches, or several by weight, "
            "such as tune:3,llm:1.",
        ),
        click.option(
            "--agent-command",
            metavar="TEMPLATE",
            help="agent: a coding agent's command, such as 'claude -p {prompt}'. Without {prompt} it is on stdin.",
        ),
        click.option(
            "--agent-minutes",
            type=click.FloatRange(min=0, min_open=True, max=24 * 60),
            default=20.0,
            show_default=True,
            help="agent: time for one edit.",
        ),
        click.option(
            "--llm-url",
            metavar="URL",
            help="llm: an OpenAI-compatible API, such as http://127.0.0.1:8080/v1. Its key, if it needs one, comes "
            "from ARMLX_LLM_KEY or OPENAI_API_KEY.",
        ),
        click.option("--llm-model", metavar="NAME", help="llm: the model to ask."),
        click.option("--llm-max-calls", type=click.IntRange(min=1), help="llm: requests in the whole session."),
        click.option("--llm-max-tokens", type=click.IntRange(min=1), help="llm: tokens in the whole session."),
        click.option(
            "--patches",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="patches: a folder of train.py files (*.py) and diffs (*.diff, *.patch), tried in name order.",
        ),
    ]
    for option in reversed(options):
        collected = option(collected)
    return collected
