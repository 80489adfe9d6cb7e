"""Somebody else's code and machines without a sandbox."""

from __future__ import annotations

import pytest

from miner.context.foreign import FLAG, authors, require_confined
from trainer.errors import EnvironmentNotReady
from trainer.project import recipe

BUNDLED = dict(recipe.load("smoke").files)
OTHER = {**BUNDLED, "train.py": b"print('by somebody')\n"}


@pytest.mark.parametrize(
    ("files", "practice", "best", "adopted", "found"),
    [
        (BUNDLED, False, None, [], []),
        (BUNDLED, False, "me", [], []),
        (BUNDLED, False, "them", [], ["them"]),
        (BUNDLED, True, "them", [], ["them"]),
        (BUNDLED, False, "me", ["them"], ["them"]),  # ours now, but grown out of theirs
        (BUNDLED, False, "them", ["them", "other"], ["other", "them"]),
        (OTHER, False, None, [], ["the project's author"]),
        (OTHER, True, None, [], []),
        (OTHER, False, "them", [], ["the project's author", "them"]),
    ],
)
def test_authors(
    files: dict[str, bytes], practice: bool, best: str | None, adopted: list[str], found: list[str]
) -> None:
    assert authors(files, practice=practice, wallet="me", best_miner=best, adopted=adopted) == found


def test_what_is_refused_names_the_risk_and_the_way_on() -> None:
    require_confined([], "bwrap was not found.")
    with pytest.raises(EnvironmentNotReady, match="code by them with your own rights") as error:
        require_confined(["them"], "bwrap was not found.")
    assert FLAG in error.value.cure
    assert "bwrap was not found" in error.value.problem
