"""Append-only lines: whole or absent, whatever cuts them short."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Refused
from common.jsonl import Jsonl, entries

LINES: list[dict[str, Any]] = [
    {"event": "begin", "n": 1},
    {"event": "text", "words": "ä\n{"},
    {"event": "end", "list": [1.5, None]},
]


class Damaged(Refused):
    pass


def opened(path: Path) -> Jsonl:
    return Jsonl(path, Damaged, "Move it away.")


def written(path: Path) -> bytes:
    lines = opened(path)
    assert list(lines.load()) == []
    for line in LINES:
        lines.append(line)
    lines.close()
    return path.read_bytes()


def test_cut_at_every_byte_it_is_a_prefix_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lines.jsonl"
    content = written(path)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        lines = opened(path)
        whole = content[:length].count(b"\n")
        assert list(lines.load()) == LINES[:whole]
        lines.append({"event": "more"})
        lines.close()
        assert [json.loads(line) for line in path.read_bytes().splitlines()] == [*LINES[:whole], {"event": "more"}]


@pytest.mark.parametrize("line", [b"{", b"[]", b"1", b'{"a": 1}{"b": 2}', b"\xff", b"[" * 100_000, b"\0\0"])
def test_a_whole_line_that_does_not_parse_is_refused_and_kept(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    before = b'{"n": 1}\n' + line + b'\n{"n": 2}\n{"n": 3'
    path.write_bytes(before)
    lines = opened(path)
    with pytest.raises(Damaged, match=r"lines\.jsonl is damaged at byte 9") as refusal:
        list(lines.load())
    assert refusal.value.cure == "Move it away."
    assert path.read_bytes() == before


@given(st.binary(max_size=200))
def test_any_bytes_are_entries_or_refused(data: bytes) -> None:
    try:
        found = list(entries(data, Path("x"), Damaged, ""))
    except Damaged:
        return
    assert len(found) == data.count(b"\n")


@pytest.mark.parametrize("room", [0, 1, 10])
@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, fails: str
) -> None:
    """`room` bytes of the line still fit."""
    path = tmp_path / "lines.jsonl"
    content = written(path)
    lines = opened(path)
    found = list(lines.load())
    write = os.write
    left = [room]

    def cramped(descriptor: int, data: Any) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(descriptor, data[: left[0]])
        left[0] -= done
        return done

    def unsafe(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, cramped if fails == "write" else unsafe)
        with pytest.raises(OSError, match="No space"):
            lines.append({"event": "too much"})
    assert path.read_bytes() == content
    lines.append({"event": "more"})
    lines.close()
    assert list(opened(path).load()) == [*found, {"event": "more"}]
