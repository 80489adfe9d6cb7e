"""Recipes: how the projects that come with this repository are put together.

A recipe is `configs/<name>/bundle.toml`: the files of the snapshot and where they come from,
hyperparameters of train.py that differ, how the data is prepared, and the terms under which the project is created.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.resources import CONFIGS, ROOT
from trainer.errors import InvalidBundle
from trainer.project import hyperparameters


@dataclass(frozen=True, slots=True)
class RecipeTerms:
    """How a project is created on chain; prices in lamports, `baseline_runs` measured before."""

    token_name: str
    token_symbol: str
    base_price: int
    slope: int
    miner_pool_cap: int
    baseline_runs: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """A snapshot's files, the arguments of prepare.py that make its data, and the project's terms."""

    name: str
    files: Mapping[str, bytes]
    data_arguments: tuple[str, ...]
    terms: RecipeTerms


def names() -> list[str]:
    """The recipes that come with this repository."""
    return sorted(path.parent.name for path in CONFIGS.glob("*/bundle.toml"))


def load(name: str) -> Recipe:
    """The recipe called `name`; InvalidBundle if it does not exist or does not fit."""
    folder = CONFIGS / name
    if name not in names():
        raise InvalidBundle(f"There is no bundle named {name!r}.", f"Use one of: {', '.join(names())}.")
    try:
        document: dict[str, Any] = tomllib.loads((folder / "bundle.toml").read_text())
        files = {path: _source(folder, source) for path, source in document["files"].items()}
        train = hyperparameters.replace(files["train.py"].decode(), document["hyperparameters"])
        files["train.py"] = train.encode()
        return Recipe(name, files, tuple(document["data"]["arguments"]), RecipeTerms(**document["project"]))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InvalidBundle(
            f"{folder / 'bundle.toml'} is invalid: {error!r}.", "Restore it from the repository."
        ) from error


def _source(folder: Path, name: str) -> bytes:
    local = folder / name
    return (local if local.is_file() else ROOT / name).read_bytes()
