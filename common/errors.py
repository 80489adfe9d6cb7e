"""The one family of refusals: what was expected, what was found, and what to do about it.

Libraries raise these; a command turns one into a line on stderr and exit status 1.
"""

from __future__ import annotations


class Refused(Exception):
    """A refusal with a cure.

    `problem` is one sentence on what was expected and what was found; `cure` is one sentence on
    what to do, or empty where nothing can be done. A problem that ends in somebody else's words gets its full stop.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        stop = "." if problem and cure and not problem.endswith((".", "!", "?", ":")) else ""
        super().__init__(f"{problem}{stop} {cure}".strip())
        self.problem = problem
        self.cure = cure

    @property
    def message(self) -> str:
        """Problem and cure, as a command prints them."""
        return str(self)
