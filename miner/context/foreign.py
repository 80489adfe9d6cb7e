"""Other people's code: it runs in a working sandbox, or where the user has said in so many words that it may not.

Foreign is whatever somebody else could have written into: a best on chain by another wallet, what grew out of one,
and the train.py of a project that is neither bundled nor on the practice network of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miner.proposers.base import SCRIPT
from trainer.errors import EnvironmentNotReady
from trainer.project import recipe

FLAG = "--run-foreign-code-unconfined"


def authors(
    files: Mapping[str, bytes], *, practice: bool, wallet: str, best_miner: str | None, adopted: Sequence[str] = ()
) -> list[str]:
    """Who else could have written what a session runs, in words; empty where nobody could.

    `files` is the project's snapshot, `practice` whether its chain lives on this machine alone, `best_miner` whoever
    holds the best on chain, `adopted` whose code the session went on from before.
    """
    bundled = [recipe.load(name).files.get(SCRIPT) for name in recipe.names()]
    found = [] if practice or files.get(SCRIPT) in bundled else ["the project's author"]
    return found + sorted({miner for miner in (best_miner, *adopted) if miner is not None and miner != wallet})


def require_confined(others: Sequence[str], why_not: str) -> None:
    """EnvironmentNotReady if somebody else's code would run with the user's own rights, for want of a sandbox."""
    if others:
        raise EnvironmentNotReady(
            f"This session would run code by {', '.join(others[:3])} with your own rights: "
            f"there is no working sandbox. {why_not}",
            f"Set up the sandbox (on Linux: `sudo apt-get install bubblewrap`), or add {FLAG} if you trust that code "
            "with your files and keys.",
        )
