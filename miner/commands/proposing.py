"""The options of `miner run` that choose and set up proposers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from miner.proposers.choice import Proposing


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
