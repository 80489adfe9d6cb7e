"""A verifier's policy file: TOML with the tables [comparison], [verdict], [source], [budget] and [holdout], whose keys
are the fields in `trainer.judging.policy`; what it leaves out keeps its default, and what it does not know is refused.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from trainer.errors import TrainerError
from trainer.judging.policy import JudgePolicy


def load(path: Path | None) -> JudgePolicy:
    """The policy of a file, or the default one."""
    if path is None:
        return JudgePolicy()
    try:
        return JudgePolicy.from_json(tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise TrainerError(f"Cannot read the policy file {path}: {error}.", "Correct it.") from error
