"""Append-only files of JSON objects, one a line: on disk before what they say is acted on.

A line is there whole or not at all. One that a crash cut short can only be the last; it was never acted on and is
dropped. Anything else that does not parse is refused, never skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from common.errors import Refused
from common.files import append


def entries(content: bytes, path: Path, damaged: type[Refused], cure: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Each whole line's object with the offset of its end; `damaged`, naming `path`, where one does not parse."""
    end = 0
    while (newline := content.find(b"\n", end)) >= 0:
        try:
            entry = json.loads(content[end:newline])
            if not isinstance(entry, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            raise damaged(f"{path} is damaged at byte {end}: {error}.", cure) from error
        end = newline + 1
        yield entry, end


class Jsonl:
    """The file at `path`, made with its folder where missing and kept open as `file`, for a lock on it.

    `damaged` is raised, with `cure`, where a line does not parse.
    """

    def __init__(self, path: Path, damaged: type[Refused], cure: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._damaged, self._cure = path, damaged, cure
        self.file: IO[bytes] = path.open("ab", buffering=0)

    def load(self) -> Iterator[dict[str, Any]]:
        """The entries; half a last line is cut off once the last one has been taken."""
        content, kept = self.path.read_bytes(), 0
        for entry, end in entries(content, self.path, self._damaged, self._cure):
            yield entry
            kept = end
        if kept < len(content):
            self.file.truncate(kept)

    def append(self, entry: Mapping[str, Any]) -> None:
        """On disk before this returns; where that fails (OSError) the file is as it was."""
        append(self.file, json.dumps(entry, sort_keys=True).encode() + b"\n")

    def close(self) -> None:
        """Close the file; every entry is on disk already."""
        self.file.close()
