"""The options of `miner run` for where trials are measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from chain.commands.options import EXECUTORS, grouped
from miner.executors.choice import LOCAL, RAY, Executing


def executing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed to the command as one argument `executing`."""

    @functools.wraps(command)
    def collected(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Executing)}
        return command(*args, executing=Executing(**chosen), **given)

    options = [
        grouped(
            EXECUTORS,
            "--executor",
            type=click.Choice([LOCAL, RAY]),
            default=LOCAL,
            show_default=True,
            help="Where to measure trials: on this machine, or on the machines of a Ray cluster that have the same "
            "hardware class and data snapshot. Confirming tests always run on this machine.",
        ),
        grouped(
            EXECUTORS,
            "--ray-address",
            metavar="ADDRESS",
            default="auto",
            show_default=True,
            help="ray: head of the cluster, as HOST:PORT; auto is the cluster this machine belongs to.",
        ),
        grouped(
            EXECUTORS,
            "--ray-home",
            metavar="DIR",
            default="",
            help="ray: home folder on each machine. [default: ARMLX_HOME there, or the user's data folder]",
        ),
    ]
    for option in reversed(options):
        collected = option(collected)
    return collected
