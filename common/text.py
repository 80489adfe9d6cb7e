"""Text from outside made safe to show: it cannot steer a terminal, reorder a line or hide in a page."""

from __future__ import annotations

import re
import unicodedata

# A URL's scheme, user, host and the rest: among other words, and alone.
_ADDRESS = re.compile(r"""([a-z][a-z0-9+.-]*://)([^\s/?#"'<>]*@)?([a-z0-9.:_\[\]-]*)([^\s"'<>]*)""", re.IGNORECASE)
_ALONE = re.compile(r"([a-z][a-z0-9+.-]*://)([^/?#]*@)?([a-z0-9.:_\[\]-]*)(.*)", re.IGNORECASE | re.DOTALL)
_NO_KEY = 16  # characters of a path that names a network, as /solana_devnet does; a key is longer


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
    return _ADDRESS.sub(_host, text)


def without_key(url: str) -> str:
    """A node's URL as it is shown and as homes name it: its scheme and host, and a path that is too short for a key."""
    found = _ALONE.fullmatch(url)
    open_path = found is None or (not found[2] and len(found[4]) <= _NO_KEY and "?" not in found[4])
    return url if found is None or open_path else _host(found)


def _host(found: re.Match[str]) -> str:
    return found[1] + found[3] + ("/..." if found[2] or found[4] not in ("", "/") else "")


def counted(number: int, word: str) -> str:
    """A number of things: 1 run, 2 runs."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def lasted(seconds: float) -> str:
    """A duration as people say it: 40 s, 13 min, 6 h, 2.5 h, 3 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h".replace(".0 h", " h") if hours < 48 else f"{hours / 24:.0f} days"


def error_line(log: str) -> str:
    """The line of a failed program's log that says why: Python's exception, which more lines may follow, else its last
    one; "" where it is empty."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    traces = [
        place for place, line in enumerate(lines) if line.lstrip().startswith("Traceback (most recent call last)")
    ]
    after = lines[traces[-1] + 1 :] if traces else []
    named = next((line for line in after if re.match(r"[A-Za-z_][\w.]*(: |$)", line)), "")
    return named or (lines[-1] if lines else "")
