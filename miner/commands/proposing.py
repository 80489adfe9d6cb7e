"""The options of `miner run` for proposers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from chain.commands.options import PROPOSERS, Number, Whole, grouped
from miner.proposers.choice import Proposing


def proposing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed to the command as one argument `proposing`."""

    @functools.wraps(command)
    def collected(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Proposing)}
        return command(*args, proposing=Proposing(**chosen), **given)

    options = [
        grouped(
            PROPOSERS,
            "--proposer",
            default=Proposing().proposer,
            show_default=True,
            metavar="SPEC",
            help="Source of candidates: edits (a library of structural changes, offline), tune (numbers and switches, "
            "offline), crossover (what another line found or nearly won, on the best of now, offline), agent, llm, "
            "patches, or several by weight, for example tune:3,llm:1. While an agent or a model is unavailable, the "
            "offline ones stand in.",
        ),
        grouped(
            PROPOSERS,
            "--agent-command",
            metavar="TEMPLATE",
            help="agent: command of a coding agent, for example 'claude -p {prompt}' (without {prompt}: on stdin).",
        ),
        grouped(
            PROPOSERS,
            "--agent-minutes",
            metavar="MINUTES",
            type=Number(min=0, min_open=True, max=24 * 60),
            default=20.0,
            show_default=True,
            help="agent: time limit of one edit.",
        ),
        grouped(
            PROPOSERS,
            "--llm-url",
            metavar="URL",
            help="llm: OpenAI-compatible API, for example http://127.0.0.1:8080/v1. Its key, if needed, is read from "
            "ARMLX_LLM_KEY or OPENAI_API_KEY.",
        ),
        grouped(PROPOSERS, "--llm-model", metavar="NAME", help="llm: model to use."),
        grouped(PROPOSERS, "--llm-max-calls", metavar="N", type=Whole(min=1), help="llm: requests per session."),
        grouped(PROPOSERS, "--llm-max-tokens", metavar="N", type=Whole(min=1), help="llm: tokens per session."),
        grouped(
            PROPOSERS,
            "--llm-price",
            metavar="IN OUT",
            type=(click.FloatRange(min=0), click.FloatRange(min=0)),
            help="llm: dollars for a million tokens asked and answered, for `miner status` and the report; not needed "
            "where the server states the cost.",
        ),
        grouped(
            PROPOSERS,
            "--max-dollars",
            metavar="DOLLARS",
            type=Number(min=0, min_open=True),
            help="agent, llm: what all of them may cost in a session, by what they or --llm-price say.",
        ),
        grouped(
            PROPOSERS,
            "--think-ahead/--no-think-ahead",
            default=True,
            show_default=True,
            help="agent, llm: prepare the next candidate while a trial is measured. A model on this "
            "machine never does.",
        ),
        grouped(
            PROPOSERS,
            "--patches",
            metavar="DIR",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="patches: folder of train.py files (*.py) and diffs (*.diff, *.patch), tried in order of name.",
        ),
    ]
    for option in reversed(options):
        collected = option(collected)
    return collected
