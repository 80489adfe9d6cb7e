"""Audits: a genuine attestation passes, on and off line; one with any number altered does not."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.connection.opening import AUTHORITY, Connection
from chain.errors import InvalidData
from chain.program.accounts import Project
from chain.program.instructions import AddVerifier, RemoveVerifier
from chain.projects.artifacts import fetch_project
from tests import local
from tests.trainer.judging.cases import failing, replay_run, runs
from tests.verifier.cases import RULES, Answer, approving, checked, rejecting, releasing
from trainer.judging.verdict import CaseFinding, Fault, Reason
from trainer.project import task
from verifier import attestation
from verifier import audit as auditing
from verifier.audit import ITS_WORD, AuditPoint, complete, passed, rederive
from verifier.cli import main
from verifier.settle import settle

HOST = CaseFinding(Reason.NOT_READY, Fault.HOST, "No sandbox.")
LONG = "x" * 3_000


audit = partial(auditing.audit, policy=RULES)


@dataclass(frozen=True, repr=False)
class Settled:
    """A home in which proposal 0 was approved and proposal 1 rejected, with the attestation of each."""

    home: Path
    key: Keypair
    sealed: dict[str, bytes]
    code: bytes
    log: bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Settled:
    home = local.home_with_project(tmp_path_factory.mktemp("audit"))
    sealed: dict[str, bytes] = {}
    code, log = local.archive(), b"---\nval_bpb: 2.4\n"
    with local.connect(home) as connection:
        key = local.verifier_of(connection)

        def done(name: str, how: Answer) -> None:
            proposal = local.propose(connection, code=code, log=log)
            found = settle(
                connection, proposal.id, key, home / name, lambda _: None, lambda p: how(connection, p), lambda _: None
            )
            assert found.checked is not None
            sealed[name] = found.checked.attestation

        done("approved", approving)
        done("rejected", rejecting)
        done("released", releasing)
        pending = local.propose(connection, code=code, log=log)
        crashes = [replay_run("incumbent", 2.5), *[failing("candidate", "crash", LONG)] * 2]
        sealed["crash"] = checked(connection, pending, crashes).attestation
        sealed["unconfirmed"] = checked(
            connection, pending, [*runs(0.2), failing("candidate", "crash", LONG)]
        ).attestation
        sealed["memorised"] = checked(connection, pending, runs(0.2, 0.0)).attestation
        sealed["host"] = checked(connection, pending, [], findings=(HOST,)).attestation
        sealed["negative"] = checked(connection, pending, runs(-0.3)).attestation
    return Settled(home, key, sealed, code, log)


def opened(data: bytes) -> dict[str, Any]:
    return attestation.open_envelope(data)[1]


def resealed(body: dict[str, Any], key: Keypair) -> bytes:
    return attestation.seal(body, key)


NAMES = ["approved", "rejected", "released", "crash", "unconfirmed", "memorised", "host", "negative"]


@pytest.mark.parametrize("name", NAMES)
def test_a_genuine_attestation_passes(world: Settled, name: str) -> None:
    points, predicate = audit(world.sealed[name], None, {"code": world.code, "log": world.log})
    assert passed(points), [point for point in points if point.holds is False]
    assert {point.question for point in points if point.holds is None} == {
        "it agrees with the chain",
        "it agrees with the project's artifacts",
        "not checkable here",
    }
    assert not complete(points)
    judged, verdict = rederive(predicate)
    assert verdict.as_json() == predicate["verdict"]
    assert judged.score == predicate["score"]["verified"]


def everything(world: Settled, connection: Connection, data: bytes) -> list[AuditPoint]:
    """All that can be asked."""

    @cache
    def read(project: Project) -> task.Task:
        return task.read(fetch_project(connection, project))

    return audit(data, connection.client, {"code": world.code, "log": world.log}, read)[0]


@pytest.mark.parametrize("name", NAMES)
def test_on_line_it_speaks_of_what_is_on_chain(world: Settled, name: str) -> None:
    with local.connect(world.home) as connection:
        points = everything(world, connection, world.sealed[name])
    answers = {point.question: point.holds for point in points}
    assert passed(points), [point for point in points if point.holds is False]
    assert complete(points), [point for point in points if point.holds is None]
    settled = name in ("approved", "rejected")
    assert answers["the proposal was settled with this attestation"] is (True if settled else None)
    assert ("the signer is the proposal's reviewer" in answers) is settled


@pytest.mark.parametrize("name", ["approved", "rejected"])
def test_no_attested_field_is_altered_unnoticed(world: Settled, name: str) -> None:
    """Each field in turn, sealed again by its own verifier: it fails by more than another hash, or is listed."""
    statement = opened(world.sealed[name])
    with local.connect(world.home) as connection:
        read = task.read(fetch_project(connection, connection.client.project(0)))
        for path in leaves(statement):
            if path[0] == "predicate" and path[1] in ITS_WORD:
                continue  # it is listed, see below
            for value in altered(get(statement, path)):
                body = opened(world.sealed[name])
                _set(body, path, value)
                try:
                    points = audit(resealed(body, world.key), connection.client, {"code": world.code}, lambda _: read)[
                        0
                    ]
                except InvalidData:
                    continue
                wrong = {point.question for point in points if point.holds is False}
                wrong.discard("the proposal was settled with this attestation")
                assert wrong or (path[1:] == ("rulesVersion",) and not complete(points)), (path, value)
        points = everything(world, connection, world.sealed[name])
    listed = next(point.detail for point in points if point.question == "not checkable here")
    said = {name for name, value in statement["predicate"].items() if name in ITS_WORD and value not in (None, [], {})}
    assert set(listed.partition(": ")[2].split(", ")) == said


@pytest.mark.parametrize(
    ("attested", "here", "words"),
    [(1, 2, "an earlier one has those, by its word 9.1"), (2, 1, "no later one is known")],
)
def test_what_other_rules_led_to_is_not_called_false(
    world: Settled, monkeypatch: pytest.MonkeyPatch, attested: int, here: int, words: str
) -> None:
    """A verdict of an earlier client may not follow by this one's rules and defaults, and was honest all the same."""
    monkeypatch.setattr(auditing, "RULES_VERSION", here)
    body = opened(world.sealed["rejected"])
    body["predicate"] |= {"rulesVersion": attested, "client": "9.1"}
    body["predicate"]["policy"]["suggestive"] = 0.2
    body["predicate"]["verdict"]["reason"] = "too_noisy"
    other = replace(RULES, comparison=replace(RULES.comparison, margin=0.001))
    with local.connect(world.home) as connection:
        read = task.read(fetch_project(connection, connection.client.project(0)))
        points = audit(
            resealed(body, world.key), connection.client, {"code": world.code}, lambda _: read, policy=other
        )[0]
    wrong = {point.question for point in points if point.holds is False}
    assert wrong == {"the proposal was settled with this attestation"}  # since it was sealed again
    open_ = {point.question: point.detail for point in points if point.holds is None}
    assert words in open_["the verdict follows from the numbers"]
    assert words in open_["the policy is the one expected"]
    assert "noise, runs, comparison" in open_["not checkable here"]
    assert "verdict" in open_["not checkable here"]
    assert not complete(points)
    body["predicate"]["runs"][0]["holdout_blocks"][0] += 1.0  # that is false by any rules
    offline, _ = audit(resealed(body, world.key), None, {})
    assert [point.question for point in offline if point.holds is False] == ["the verdict follows from the numbers"]
    body["predicate"]["rulesVersion"] = float(attested)
    with pytest.raises(InvalidData, match="rulesVersion"):
        audit(resealed(body, world.key), None, {})


@pytest.mark.parametrize("change", ["duplicate", "nan", "unknown", "missing", "version", "another kind"])
def test_what_departs_from_the_schema_is_refused(world: Settled, change: str) -> None:
    body = opened(world.sealed["approved"])
    predicate = body["predicate"]
    match change:
        case "unknown":
            predicate["more"] = 1
        case "missing":
            del predicate["environment"]
        case "version":
            predicate["schemaVersion"] = "2"
        case "another kind":
            predicate["project"] = "0"
    payload = json.dumps(body, sort_keys=True)
    if change == "duplicate":
        payload = payload.replace('"project": 0', '"project": 1, "project": 0')
    if change == "nan":
        payload = re.sub(r'"budgetSeconds": [0-9.]+', '"budgetSeconds": NaN', payload)
    signed = world.key.sign_message(attestation._pae(payload.encode()))
    envelope = {
        "payloadType": attestation.PAYLOAD_TYPE,
        "payload": base64.b64encode(payload.encode()).decode(),
        "signatures": [{"keyid": str(world.key.pubkey()), "sig": base64.b64encode(bytes(signed)).decode()}],
    }
    with pytest.raises(InvalidData):
        audit(json.dumps(envelope).encode(), None, {})


def test_a_genuine_attestation_stays_valid_when_its_signer_has_left(world: Settled) -> None:
    with local.connect(world.home) as connection:
        authority = connection.wallet(None, AUTHORITY)
        connection.client.call(RemoveVerifier(world.key.pubkey()), authority)
        try:
            points = audit(world.sealed["approved"], connection.client, {})[0]
            assert passed(points), [point for point in points if point.holds is False]
            points = audit(world.sealed["crash"], connection.client, {})[0]  # not settled: its signer must be on it
            assert [point.question for point in points if point.holds is False] == [
                "the signer is a registered verifier"
            ]
        finally:
            connection.client.call(AddVerifier(world.key.pubkey()), authority)


def test_an_attestation_that_was_not_used_is_told_apart(world: Settled) -> None:
    """The same numbers sealed again, by the same verifier, a second later: not what settled."""
    body = opened(world.sealed["approved"])
    body["predicate"]["createdAt"] = "2030-01-01T00:00:00Z"
    with local.connect(world.home) as connection:
        points, _ = audit(resealed(body, world.key), connection.client, {})
    assert [point.question for point in points if point.holds is False] == [
        "the proposal was settled with this attestation"
    ]


def test_another_proposal_or_project_does_not_fit(world: Settled) -> None:
    with local.connect(world.home) as connection:
        for path, value in (
            (("artifacts", "code"), "00" * 32),
            (("artifacts", "protocol"), "00" * 32),
            (("proposal",), 1),
        ):
            body = opened(world.sealed["approved"])
            _set(body["predicate"], path, value)
            points, _ = audit(resealed(body, world.key), connection.client, {})
            assert not passed(points)
        body = opened(world.sealed["approved"])
        body["predicate"]["project"] = 9
        points, _ = audit(resealed(body, world.key), connection.client, {})
        assert "what it names is on chain" in [point.question for point in points if point.holds is False]


def _set(value: Any, path: tuple[str | int, ...], new: object) -> None:
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = new


def test_other_files_are_not_the_attested_ones(world: Settled) -> None:
    for files in ({"code": b"x"}, {"log": b"x"}, {"protocol": b"x"}, {"nothing": b"x"}):
        assert not passed(audit(world.sealed["approved"], None, files)[0])


# --- altered ---


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of values that are not containers, and of empty containers: of all, but of what a list holds alike
    (runs, and a run's blocks), the first two and the last.
    """
    items = value.items() if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else ()
    if not items or not value:
        yield path
    if isinstance(items, list) and len(items) > 3:
        items = [*items[:2], items[-1]]
    for key, entry in items:
        yield from leaves(entry, (*path, key))


def altered(value: Any) -> list[Any]:
    """Other values of a kind, from near to absurd."""
    match value:
        case bool():
            return [not value, None]
        case int():
            return [value + 1, -value - 7, "x", None]
        case float():
            return [value + 0.001, -value - 1.0, value * 3 + 1, "x", None]
        case str():
            return [value + "x", "", 7, None]
        case None:
            return ["x", 7, 2.5]
    return ["x", None]


def get(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("name", ["approved", "crash", "host"])
def test_any_byte_of_the_statement_that_is_altered_breaks_the_signature(world: Settled, name: str) -> None:
    """Without the verifier's key no field of the statement can be another: all of them, one by one."""
    envelope = json.loads(world.sealed[name])
    body = opened(world.sealed[name])
    paths = list(leaves(body))
    assert len(paths) > 50
    for path in paths:
        forged = copy.deepcopy(body)
        _set(forged, path, altered(get(body, path))[0])
        envelope["payload"] = base64.b64encode(json.dumps(forged, sort_keys=True).encode()).decode()
        with pytest.raises(InvalidData):
            audit(json.dumps(envelope).encode(), None, {})


# What a verifier that lies with its own key could alter without contradicting itself: these fields are its word
# for what the numbers do not show. On line the chain speaks against those of them that it knows.
UNSEEN_OFFLINE = {
    *ITS_WORD,
    "network",
    "programId",
    "project",
    "proposal",
    "artifacts",
    "harness",
}


def test_a_verifier_that_lies_with_its_own_key_contradicts_itself(world: Settled) -> None:
    """Every number the verdict rests on, or that follows from others, altered and sealed again."""
    for name in ("approved", "memorised", "negative"):
        predicate = opened(world.sealed[name])["predicate"]
        for path in leaves(predicate):
            if path[0] in UNSEEN_OFFLINE or path[0] in (
                "runs",
                "noise",
                "policy",
                "budgetSeconds",
                "findings",
                "verifier",
                "rulesVersion",
            ):
                continue
            for value in altered(get(predicate, path)):
                body = opened(world.sealed[name])
                _set(body["predicate"], path, value)
                try:
                    points, _ = audit(resealed(body, world.key), None, {})
                except InvalidData:
                    continue
                assert not passed(points), (name, path, value)


@pytest.mark.parametrize("index", [0, 1, 2, 3])
@pytest.mark.parametrize("field", ["val_bpb", "holdout_bpb", "arm"])
def test_the_runs_that_decided_cannot_be_others(world: Settled, index: int, field: str) -> None:
    for value in altered(opened(world.sealed["approved"])["predicate"]["runs"][index][field]):
        body = opened(world.sealed["approved"])
        body["predicate"]["runs"][index][field] = value
        try:
            points, _ = audit(resealed(body, world.key), None, {})
        except InvalidData:
            continue
        assert not passed(points), value


def test_blocks_of_text_that_do_not_add_up_are_seen(world: Settled) -> None:
    body = opened(world.sealed["approved"])
    body["predicate"]["runs"][0]["holdout_blocks"][0] += 0.001
    points, _ = audit(resealed(body, world.key), None, {})
    assert any(point.holds is False and "add up" in point.detail for point in points)


def test_noise_policy_findings_and_signer_count(world: Settled) -> None:
    changes: list[tuple[tuple[str | int, ...], object]] = [
        (("noise", "df"), 3.0),
        (("noise", "sum_squares"), 1.0),
        (("policy", "comparison", "alpha"), 0.2),
        (("policy", "comparison", "margin"), 1.0),
        (("policy", "holdout", "alpha"), 0.2),
        (("policy", "comparison", "unknown"), 1),
        (("policy", "same_hardware"), "no"),
        (("runs", 1, "train_seconds"), 60.0),
        (("runs", 1, "failure"), 7),
        (("findings",), [{"reason": "not_ready", "fault": "host", "detail": "x"}]),
        (("findings",), [{"reason": "because", "fault": "host", "detail": "x"}]),
        (("findings",), [7]),
        (("runs",), []),
        (("runs",), [{}]),
        (("runs",), None),
        (("verifier",), str(Keypair().pubkey())),
        (("minimize",), False),
    ]
    for path, value in changes:
        body = opened(world.sealed["approved"])
        _set(body["predicate"], path, value)
        try:
            points, _ = audit(resealed(body, world.key), None, {})
        except InvalidData:
            continue
        assert not passed(points), (path, value)


def test_another_signer_is_not_the_verifier_it_names(world: Settled) -> None:
    stranger = Keypair()
    points, _ = audit(resealed(opened(world.sealed["approved"]), stranger), None, {})
    assert not passed(points)
    body = opened(world.sealed["approved"])
    body["predicate"]["verifier"] = str(stranger.pubkey())
    sealed = resealed(body, stranger)
    assert passed(audit(sealed, None, {})[0])  # consistent with itself, off line
    with local.connect(world.home) as connection:
        points, _ = audit(sealed, connection.client, {})
    assert "the signer is the proposal's reviewer" in [point.question for point in points if point.holds is False]


def test_a_subject_that_is_not_the_code_it_judged(world: Settled) -> None:
    body = opened(world.sealed["approved"])
    body["subject"] = [{"name": "code.tar", "digest": {"sha256": "00" * 32}}]
    assert not passed(audit(resealed(body, world.key), None, {})[0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_nonsense_in_any_field_is_an_answer(world: Settled, data: st.DataObject) -> None:
    """Whatever a hostile verifier seals, the audit answers or says that it does not fit; it never breaks."""
    body = opened(world.sealed["approved"])
    paths = list(leaves(body["predicate"]))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths))
        path = path[: data.draw(st.integers(1, len(path)))]
        value: Any = data.draw(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=5)
            | st.just([])
            | st.just({})
            | st.just([[[]]])
            | st.just({"a": {}})
        )
        try:
            get(body["predicate"], path)
        except (KeyError, TypeError, IndexError):
            return  # an earlier change has cut it off
        with suppress(TypeError, KeyError, IndexError):  # an earlier change took its place away
            _set(body["predicate"], path, value)
    try:
        points, _ = audit(resealed(body, world.key), None, {})
    except InvalidData:
        return
    assert points[0].holds


# --- the command ---


def test_the_command(world: Settled, tmp_path: Path) -> None:
    file, code = tmp_path / "attestation.json", tmp_path / "code.tar"
    file.write_bytes(world.sealed["approved"])
    code.write_bytes(world.code)

    rules = tmp_path / "policy.toml"
    rules.write_text("same_hardware = false\n")

    def run(*arguments: object) -> Any:
        given = [*map(str, arguments), "--home", str(world.home), "--policy", str(rules)]
        return CliRunner().invoke(main, ["audit", *given])

    found = run(file, "--offline", "--code", code, "--json")
    assert found.exit_code == 3, found.output  # nothing contradicts it, and the chain was not asked
    answer = json.loads(found.stdout)
    assert (answer["passed"], answer["verdict"]["kind"]) == (True, "approve")
    assert run(file).exit_code == 0  # the archive with its train.py is fetched
    found = run(file, "--code", code)
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("yes")
    code.write_bytes(b"other")
    found = run(file, "--offline", "--code", code)
    assert found.exit_code == 1
    assert "NO         the given code is the attested one" in found.stdout
    file.write_bytes(b"{}")
    found = run(file, "--offline")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith("Error: This is not a DSSE envelope")
    assert run(tmp_path / "absent.json").exit_code == 2
