"""Other sessions of a home, read once for as long as they stay as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from miner.journal import journal, sessions, trials
from miner.journal.journal import JournalDamaged


def test_a_session_is_read_once_for_as_long_as_it_stays(
    night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(night / "work", tmp_path / "work")
    (entry,) = sessions.find(tmp_path)
    reads: list[Path] = []
    read = journal.read

    def counted(path: Path) -> journal.Session:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(journal, "read", counted)
    first = trials.past(entry)
    assert trials.past(entry) is first
    assert trials.read(entry)[0] is first
    assert len(reads) == 1
    with entry.journal.open("a") as file:
        event = {"event": "decision", "number": 44, "decision": "discard", "delta": None, "at": "2026-11-25T09:00:00Z"}
        file.write(json.dumps(event) + "\n")
    assert trials.past(entry).trials[44].decision == "discard"
    assert len(reads) == 2
    entry.journal.unlink()
    with pytest.raises(JournalDamaged):
        trials.past(entry)
