"""Text from outside made safe to show: it cannot steer a terminal, reorder a line or hide in a page."""

from __future__ import annotations

import re
import unicodedata

_ADDRESS = re.compile(r"""([a-z][a-z0-9+.-]*://)(?:[^\s/?#"'<>]*@)?([a-z0-9.:_\[\]-]*)([^\s"'<>]*)""", re.IGNORECASE)


def printable(text: str, limit: int = 200, *, spaces: bool = False) -> str:
    """Text from outside as one line of at most `limit` characters.

    Line breaks and tabs become spaces, and runs of spaces one unless `spaces` keeps them; control, format (which turn
    the direction of writing), private and unassigned characters are left out.
    """
    cut = text[: 4 * limit].expandtabs(4)
    shown = "".join(" " if c.isspace() else c for c in cut if c.isspace() or unicodedata.category(c)[0] != "C")
    shown = shown.rstrip() if spaces else " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def multiline(text: str, limit: int | None = None) -> str:
    """Text from outside whose line feeds and tabs stay, without the other characters that `printable` replaces.

    Cut at `limit` characters where one is given.
    """
    cut = text if limit is None else text[: limit + 1]
    cut = cut.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    kept = "".join(c for c in cut if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return kept if limit is None or len(text) <= limit else kept[: limit - 1] + "…"


def hosts_only(text: str) -> str:
    """Text in which each URL is its scheme and host: the rest (user, path, query) may be the key of a paid service."""
    return _ADDRESS.sub(lambda found: found[1] + found[2] + ("/..." if (found[3] or "/") != "/" else ""), text)


def lasted(seconds: float) -> str:
    """A duration as people say it: 40 s, 13 min, 6 h, 2.5 h, 3 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h".replace(".0 h", " h") if hours < 48 else f"{hours / 24:.0f} days"
