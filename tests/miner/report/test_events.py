"""The events of a session: their stable keys, and that each tells what the journal says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chain.program.accounts import ProposalStatus
from common import notify
from miner.context.goals import Goals
from miner.report import events
from miner.session import feed
from miner.session import frontier as frontiers
from miner.session.frontier import FetchedBest
from miner.session.loop import Miner
from tests.miner.fakes import SOURCE, Fake, Scripted

BETTER, WORSE, BROKEN = (SOURCE.replace("0.1", rate) for rate in ("0.2", "0.4", "0.5"))
TRUE = {SOURCE: 2.5, BETTER: 2.3, WORSE: 2.7, BROKEN: None}
COMMON = {"event", "at", "project", "network"}
KEYS = {
    "start": {"resumed", "folder"},
    "run": {"trial", "arm", "value", "failure", "seconds", "machine", "joules"},
    "decision": {"trial", "hypothesis", "decision", "delta", "low", "high", "p", "reason"},
    "keep": {"trial", "hypothesis", "value", "delta", "low", "high", "gain"},
    "confirmation": {"trial", "confirmed", "delta", "low", "high", "p", "reason"},
    "submission": {"trial", "proposal", "stake"},
    "settlement": {"trial", "proposal", "status"},
    "stop": {"reason", "trials", "kept", "best_delta", "proposals", "folder"},
}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events of a session that crashes, discards, keeps, confirms, submits, and sees its proposal approved."""
    best = FetchedBest("00" * 32, SOURCE, "2.500000", "somebody")
    monkeypatch.setattr(frontiers, "fetch", lambda *_: best)
    fake, found = Fake(tmp_path, TRUE, goals=Goals(submissions=0)), list[dict[str, Any]]()
    fake.chain.network.name = "embedded"

    def approve() -> None:
        fake.chain.statuses = dict.fromkeys(fake.chain.statuses, ProposalStatus.APPROVED)

    fake.chain.before_look = approve
    with feed.told(fake.context, lambda event: found.append(json.loads(json.dumps(event)))):
        Miner(fake.context, Scripted(WORSE, BROKEN, BETTER, WORSE)).run()
    return found


def test_every_kind_is_told_with_its_keys(told: list[dict[str, Any]]) -> None:
    assert {event["event"] for event in told} == set(KEYS)
    for event in told:
        assert set(event) == COMMON | KEYS[event["event"]], event["event"]
        assert (event["project"], event["network"]) == (0, "embedded")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["at"])


def test_they_come_in_order_and_say_what_happened(told: list[dict[str, Any]]) -> None:
    kinds = [event["event"] for event in told if event["event"] != "run"]
    assert kinds == [
        *("start", "decision", "decision", "decision", "keep", "confirmation", "submission", "settlement"),
        *("decision", "stop"),
    ]
    by = {event["event"]: event for event in told}
    assert [event["decision"] for event in told if event["event"] == "decision"] == [
        "discard",
        "crash",
        "keep",
        "discard",
    ]
    assert by["keep"]["delta"] == pytest.approx(0.2, abs=0.01)
    assert (by["confirmation"]["confirmed"], by["confirmation"]["trial"]) == (True, 3)
    assert (by["settlement"]["status"], by["settlement"]["proposal"]) == ("approved", 0)
    assert (by["stop"]["trials"], by["stop"]["kept"], by["stop"]["proposals"]) == (4, 1, [0])
    assert told[-1] is by["stop"]
    runs = [event for event in told if event["event"] == "run"]
    assert {event["arm"] for event in runs} == {"candidate", "incumbent"}
    assert [event["value"] for event in runs if event["failure"]] == [None] * sum(bool(e["failure"]) for e in runs)


def test_what_a_machine_of_a_cluster_judged_is_told_run_by_run(tmp_path: Path) -> None:
    fake = Fake(tmp_path, TRUE)
    fake.trial(SOURCE, decision="keep", delta=0.0)
    fake.trial(BETTER)
    run = {"arm": "candidate", "val_bpb": 2.3, "failure": "", "detail": "", "machine": "b", "log": "x"}
    found = list[dict[str, Any]]()
    fake.journal.listeners.append(lambda event, session: found.extend(events.told(event, session)))
    decision = {"decision": "keep", "delta": 0.2, "low": 0.1, "high": 0.3, "p": 0.001, "reason": "so"}
    fake.journal.append("judged", number=1, runs=[{**run, "seconds": 9.0, "memory_mb": None}] * 2, decision=decision)
    assert [event["event"] for event in found] == ["run", "run", "decision", "keep"]
    assert found[0]["machine"] == "b"


def test_only_what_matters_notifies_and_its_words_are_short(
    told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [events.words(event) for event in told if event["event"] in events.NOTIFIED]
    assert len(said) == 5
    for words, start in zip(
        said,
        ("Found: idea 3 (−0.", "Confirmed: trial 3", "Submitted", "Proposal 0 is approved", "Mining stopped: the"),
        strict=True,
    ):
        assert words.startswith(start)
        assert len(words) < 120


def test_a_channel_gets_them_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = list[notify.Event]()
    monkeypatch.setattr(feed, "channels", lambda *_, **__: {"test": lambda _, event: sent.append(event)})
    fake = Fake(tmp_path, TRUE)
    fake.chain.network.name = "embedded"
    with feed.told(fake.context):
        fake.journal.append("begin")
        fake.journal.append("end", reason="enough", seconds=1.0)
    assert [event["event"] for event in sent] == ["stop"]
    assert "folder" not in sent[0]
    assert fake.journal.listeners == []
