"""A model of macOS's sandbox: decides by a profile's text what it would allow. No Mac was at hand.

Of the rules that match an operation the last counts; without one, `(deny default)` does, but for what version 1 of the
language leaves open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OPEN = ("file-map-executable", "iokit-get-properties", "mach-task-name", "nvram", "process-info", "sysctl-read")


@dataclass(frozen=True)
class Rule:
    """`(allow OPERATION (KIND VALUE) ...)`; without a filter, of every object."""

    allow: bool
    operation: str
    filters: tuple[tuple[str, str], ...]

    def matches(self, operation: str, kind: str, value: str) -> bool:
        wanted = self.operation
        if wanted.endswith("*"):
            if not operation.startswith(wanted[:-1]):
                return False
        elif operation != wanted and wanted != "default":
            return False
        return not self.filters or any(_fits(f, v, kind, value) for f, v in self.filters)


def _fits(filter_kind: str, wanted: str, kind: str, value: str) -> bool:
    match filter_kind:
        case "literal":
            return kind == "path" and value == wanted
        case "subpath":
            return kind == "path" and (value == wanted or value.startswith(wanted + "/"))
        case "sysctl-name-prefix":
            return kind == "sysctl-name" and value.startswith(wanted)
        case _:
            return (kind, value) == (filter_kind, wanted)


def parse(text: str) -> list[Rule]:
    """The rules of a profile, line by line; ValueError for what this model does not know."""
    rules = []
    for line in text.splitlines():
        if line == "(version 1)":
            continue
        found = re.fullmatch(r"\((allow|deny) ([a-z*-]+)((?: \([a-z-]+ (?:\"(?:[^\"\\]|\\.)*\"|self)\))*)\)", line)
        if found is None:
            raise ValueError(f"not a rule: {line}")
        filters = re.findall(r"\(([a-z-]+) (?:\"((?:[^\"\\]|\\.)*)\"|(self))\)", found[3])
        values = tuple((kind, re.sub(r"\\(.)", r"\1", text) or word) for kind, text, word in filters)
        rules.append(Rule(found[1] == "allow", found[2], values))
    return rules


def allows(rules: list[Rule], operation: str, kind: str = "", value: str = "") -> bool:
    """Whether an operation on an object would be allowed."""
    decided = [rule for rule in rules if rule.operation != "default" and rule.matches(operation, kind, value)]
    return decided[-1].allow if decided else operation.startswith(OPEN)
