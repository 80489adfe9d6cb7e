"""Byte ranges of HTTP (RFC 9110, section 14): the one part of a content that a client asks for."""

from __future__ import annotations

import re


class Unsatisfiable(Exception):
    """A range that begins behind the content's end: answered 416."""


def byte_range(header: str, size: int) -> range | None:
    """Which of `size` bytes a `Range` header asks for; None for all of them: where there is none, or it is several or
    malformed, which a server may ignore. Raises Unsatisfiable.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,15})-([0-9]{0,15})", header.replace(" ", ""))
    if match is None or match.group() == "bytes=-":
        return None
    first, last = match.groups()
    if not first:  # the last so many bytes
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise Unsatisfiable(f"the content has {size} bytes")
    return range(start, stop)
