"""The options of `miner run` that say where trials are measured."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from miner.executors.choice import LOCAL, RAY, Executing


def executing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, handed to the command as one argument `executing`."""

    @functools.wraps(command)
    def collected(*args: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(Executing)}
        return command(*args, executing=Executing(**chosen), **given)

    options = [
        click.option(
            "--executor",
            type=click.Choice([LOCAL, RAY]),
            default=LOCAL,
            show_default=True,
            help="Where trials are measured: here, or on the machines of a Ray cluster that are of this machine's "
            "class and have its data snapshot, one trial on each. What is to be submitted is confirmed here.",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            default="auto",
            show_default=True,
            help="ray: the cluster's head as HOST:PORT; auto is the cluster that this machine is part of.",
        ),
        click.option(
            "--ray-home",
            metavar="DIR",
            default="",
            help="ray: folder of environment, data and noise on each machine. [default: ARMLX_HOME there, else its "
            "user's data folder]",
        ),
    ]
    for option in reversed(options):
        collected = option(collected)
    return collected
