"""The session journal: whatever a crash leaves of the file, the state is that of a prefix of the events."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.journal.journal import Journal, JournalDamaged, Session, SessionBusy, seconds_of

COMMITS = st.text("0123456789abcdef", min_size=40, max_size=40)


def trial(number: int, commit: str = "c" * 40) -> dict[str, Any]:
    return {
        "event": "trial",
        "number": number,
        "hypothesis": f"LR 0.1 -> 0.{number}",
        "fingerprint": f"{number:064x}",
        "commit": commit,
        "base": "b" * 40,
    }


def run(number: int, value: float | None, arm: str = "candidate") -> dict[str, Any]:
    return {
        "event": "run",
        "number": number,
        "arm": arm,
        "val_bpb": value,
        "failure": "" if value else "crash",
        "detail": "Grüße\n",
        "seconds": 6.1,
        "memory_mb": None,
        "log": "logs/x.log",
    }


SESSION = {"event": "session", "seed": 7, "tag": "20260101-000000"}
WHOLE = [
    SESSION,
    trial(0),
    run(0, 2.5, "incumbent"),
    {"event": "decision", "number": 0, "decision": "keep", "delta": 0.0},
    trial(1),
    run(1, 2.4),
    run(1, None),
    {"event": "decision", "number": 1, "decision": "keep", "delta": 0.1},
    {"event": "intent", "number": 1, "code_hash": "aa", "log_hash": "bb"},
    {"event": "sent", "signature": "s", "last_valid": 9},
    {"event": "submitted", "proposal": 3},
    trial(2),
    run(2, 2.45),
]


@st.composite
def sessions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events as a session writes them, with texts and numbers of any kind."""
    events: list[dict[str, Any]] = [SESSION]
    for number in range(draw(st.integers(0, 4))):
        events.append(trial(number, draw(COMMITS)) | {"hypothesis": draw(st.text(max_size=20))})
        values = draw(st.lists(st.none() | st.floats(0.5, 5), max_size=3))
        events += [run(number, value) for value in values]
        if draw(st.booleans()):
            word = draw(st.sampled_from(["keep", "discard", "crash"]))
            events.append(
                {"event": "decision", "number": number, "decision": word, "delta": draw(st.none() | st.just(0.1))}
            )
    for _ in range(draw(st.integers(0, 2))):
        events.append({"event": "intent", "number": 1, "code_hash": "aa", "log_hash": "bb"})
        ends: list[list[str]]
        ends = [[], ["sent"], ["sent", "submitted"], ["sent", "abandoned"], ["abandoned"]]
        fields: dict[str, dict[str, Any]]
        fields = {"sent": {"signature": "s", "last_valid": 4}, "submitted": {"proposal": 0}, "abandoned": {}}
        events += [{"event": name} | fields[name] for name in draw(st.sampled_from(ends))]
    return events


def written(path: Path, events: list[dict[str, Any]]) -> tuple[bytes, list[Session]]:
    """The file after all events, and the state after each prefix of them."""
    journal = Journal(path)
    states = [deepcopy(journal.session)]
    for event in events:
        journal.append(event["event"], **{key: value for key, value in event.items() if key != "event"})
        states.append(deepcopy(journal.session))
    journal.close()
    assert reopened(path) == states[-1]
    return path.read_bytes(), states


def reopened(path: Path) -> Session:
    journal = Journal(path)
    journal.close()
    return journal.session


def test_what_it_adds_up_to(tmp_path: Path) -> None:
    written(tmp_path / "session.jsonl", WHOLE)
    session = reopened(tmp_path / "session.jsonl")
    assert (session.seed, session.tag) == (7, "20260101-000000")
    assert [(t.number, t.decision, t.kept, len(t.runs)) for t in session.trials] == [
        (0, "keep", True, 1),
        (1, "keep", True, 2),
        (2, "", False, 1),
    ]
    assert session.unfinished == [session.trials[2]]
    assert session.pending is None
    assert [(s.trial, s.proposal, s.open) for s in session.submissions] == [(1, 3, False)]
    assert [
        (t.fingerprint[-1], t.kept, t.delta) for t in session.history(lambda commits: ["x = 1\n"] * len(commits))
    ] == [
        ("0", True, 0.0),
        ("1", True, 0.1),
    ]


@pytest.mark.parametrize(
    ("passed", "delta", "head"),
    [
        (True, 0.1, "d" * 40),
        (False, 0.02, "d" * 40),  # not shown, but not disproved: the search goes on from it
        (False, None, "d" * 40),
        (False, -0.01, "c" * 40),
        (False, 0.0, "c" * 40),
    ],
)
def test_a_disproved_keep_is_left_with_the_very_event_that_says_so(
    passed: bool, delta: float | None, head: str, tmp_path: Path
) -> None:
    about = {"trial": 1, "commit": "d" * 40, "against": "c" * 40, "seed": 1, "holdout_seed": "00", "noise": {}}
    numbers = dict.fromkeys(("low", "high", "p", "holdout_delta"))
    events = [
        SESSION,
        trial(0),
        {"event": "decision", "number": 0, "decision": "keep", "delta": 0.0},
        trial(1, "d" * 40),
        {"event": "decision", "number": 1, "decision": "keep", "delta": 0.1},
        {"event": "confirming", **about},
        {"event": "confirmed", "passed": passed, "reason": "", "delta": delta, **numbers},
    ]
    _, states = written(tmp_path / "session.jsonl", events)
    assert states[-2].head == "d" * 40
    assert states[-1].head == head


def test_cut_at_every_byte_it_is_a_prefix(tmp_path: Path) -> None:
    content, states = written(tmp_path / "session.jsonl", WHOLE)
    cut = tmp_path / "cut.jsonl"
    for length in range(len(content) + 1):
        cut.write_bytes(content[:length])
        assert reopened(cut) == states[content[:length].count(b"\n")]
        assert cut.read_bytes() == content[: content.rfind(b"\n", 0, length) + 1]


@settings(max_examples=25, deadline=None)
@given(sessions(), st.data())
def test_any_session_survives_any_cut(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "session.jsonl"
    content, states = written(path, events)
    length = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:length])
    journal = Journal(path)
    assert journal.session == states[content[:length].count(b"\n")]
    # what was cut off can be written again, and the file reads back
    for event in events[content[:length].count(b"\n") :]:
        journal.append(event["event"], **{key: value for key, value in event.items() if key != "event"})
    journal.close()
    again = reopened(path)
    assert [t.commit for t in again.trials] == [t.commit for t in states[-1].trials]
    assert again.submissions == states[-1].submissions


def test_an_event_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    """A process that is killed right after `append` has lost nothing, and the half line it began is dropped."""
    path = tmp_path / "session.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path; from miner.journal.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); journal.append('session', seed=1, tag='t')\n"
        'os.write(journal._lines.file.fileno(), b\'{"event": "tri\')\n'
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60).returncode == -9
    assert path.read_bytes().endswith(b'{"event": "tri')
    assert reopened(path).tag == "t"
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "celebration"}',
        '{"event": ["trial"]}',
        '{"no": "event"}',
        '{"event": "trial", "number": 1}',
        '{"event": "run", "number": 5, "arm": "candidate", "val_bpb": 2.0}',
        '{"event": "run", "number": 1, "arm": "candidate", "val_bpb": 2.0}',
        '{"event": "decision", "number": 0, "decision": "keep", "delta": null}',
        '{"event": "sent", "signature": "s", "last_valid": 1}',
        '{"event": "submitted", "proposal": 1}',
        '{"event": "abandoned"}',
        "[]",
        "7",
        "nonsense",
        "",
        '{"event": "trial"',
        "\udcff",
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "session.jsonl"
    content = b"".join(json.dumps(e).encode() + b"\n" for e in [SESSION | {"at": "t"}, trial(1)])
    content += line.encode(errors="surrogateescape") + b"\n"
    path.write_bytes(content)
    with pytest.raises(JournalDamaged) as refusal:
        Journal(path)
    assert refusal.value.cure.startswith("Move its folder away")
    assert path.read_bytes() == content


def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "session.jsonl")
    with pytest.raises(SessionBusy, match="Another process"):
        Journal(tmp_path / "session.jsonl")
    journal.append("session", seed=1, tag="t")
    journal.close()
    assert reopened(tmp_path / "session.jsonl").tag == "t"


@pytest.mark.parametrize("text", ["", "t", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00"])
def test_a_time_that_is_none(text: str) -> None:
    assert seconds_of(text) is None
