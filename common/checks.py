"""A line on one thing that work needs, for commands that say what is there and what is missing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is needed. `state`: ok, differs (work is possible, with that consequence) or missing."""

    name: str
    state: str
    found: str
    cure: str = ""

    @property
    def line(self) -> str:
        """For people."""
        mark = {"ok": "✓", "differs": "!", "missing": "✗"}[self.state]
        return f"{mark} {self.name}: {self.found}" + (f" {self.cure}" if self.cure else "")
