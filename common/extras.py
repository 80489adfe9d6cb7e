"""Packages that only few need: extras of this distribution, asked for where they are used."""

from __future__ import annotations

import importlib.util

from common.errors import Refused
from common.resources import CHECKOUT


class ExtraMissing(Refused):
    """A package that the requested option needs is not installed."""


def install(extra: str) -> str:
    """The sentence that says how an extra is installed, in a checkout or beside an installed command."""
    how = f"uv sync --extra {extra}" if CHECKOUT else f"uv tool install 'openresearch_miner-….whl[{extra}]'"
    return f"Install it with `{how}`."


def need(module: str, extra: str, what: str) -> None:
    """Raise ExtraMissing unless `module` can be imported; `what` is the option that needs it, such as "--png"."""
    if importlib.util.find_spec(module) is None:
        raise ExtraMissing(f"{what} needs the package {module}, which is not installed.", install(extra))
