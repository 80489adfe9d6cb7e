"""The published schema against attestations of each kind: whole, strict, and in step with the code that writes them.

One of a real check is held to it in `tests/e2e/test_path.py`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

import verifier
from chain.connection.opening import Connection
from chain.irys.client import Role
from tests import local
from tests.trainer.judging.cases import failing, replay_run, runs
from tests.verifier.cases import checked
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import CaseFinding, Fault, Reason
from verifier import attestation, check

SCHEMA: dict[str, Any] = json.loads((Path(verifier.__file__).parent / "attestation.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def problems(body: object) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in VALIDATOR.iter_errors(body)]


def body_of(sealed: bytes) -> dict[str, Any]:
    return attestation.open_envelope(sealed)[1]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path_factory.mktemp("schema"))) as connection:
        yield connection


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_kind_of_attestation_fits(connection: Connection) -> None:
    """Of proposals: approved, failing, released by this host, unreadable, and of a project that cannot be fetched."""
    proposal = local.propose(connection)
    host = CaseFinding(Reason.NOT_READY, Fault.HOST, "x" * 5_000)
    made = [
        checked(connection, proposal, runs(0.2)),
        checked(connection, proposal, runs(0.0)),
        checked(connection, proposal, [replay_run("incumbent", 2.5), failing("candidate", "crash", "y" * 5_000)]),
        checked(connection, proposal, [], findings=(host,)),
        checked(connection, local.propose(connection, code=b"no tar"), []),
    ]
    other = connection.publish(local.miner_of(connection), Role.PROPOSAL_CODE, b"x", "application/x-tar")
    broken = local.propose(connection, published=(sha256(local.archive()).digest(), other[1]))
    made.append(checked(connection, broken, []))
    key = local.verifier_of(connection)
    unreadable = check._nothing((CaseFinding(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST, "No gateway answers."),))
    project = connection.client.project(0)
    made.append(
        check._conclude(
            connection, project, proposal, None, unreadable, key, JudgePolicy(), connection.home / "none", None
        )
    )
    for found in made:
        assert problems(body_of(found.attestation)) == []
    kinds = [(found.verdict.kind.value, found.verdict.reason.value) for found in made]
    assert kinds == [
        ("approve", "improved"),
        ("reject", "no_improvement"),
        ("release", "unconfirmed"),
        ("release", "not_ready"),
        ("release", "malformed_archive"),
        ("reject", "hash_mismatch"),
        ("release", "artifact_unavailable"),
    ]


def objects(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all objects."""
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        yield from objects(entry, (*path, key))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def test_it_is_strict(connection: Connection) -> None:
    """No object takes a field more or a field less."""
    body = body_of(checked(connection, local.propose(connection), runs(0.2, count=4)).attestation)
    assert problems(body) == []
    for path in objects(body):
        more = copy.deepcopy(body)
        at(more, path)["surprise"] = 1
        assert problems(more), path
        if path[-1:] == ("harness",):
            continue
        for name in at(body, path):
            less = copy.deepcopy(body)
            del at(less, path)[name]
            assert problems(less), (*path, name)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicate", "verdict", "kind"), "maybe"),
        (("predicate", "verdict", "reason"), "because"),
        (("predicate", "artifacts", "code"), "AA" * 32),
        (("predicate", "proposal"), -1),
        (("predicate", "verifier"), "0OIl"),
        (("predicate", "method"), "hearsay"),
        (("predicate", "runs", 0, "arm"), "third"),
        (("predicate", "runs", 0, "failure"), "crash"),  # with a value
        (("predicate", "runs", 0, "val_bpb"), None),  # without a failure
        (("predicate", "comparison", "interval"), [1.0]),
        (("predicate", "comparison", "p"), 2),
        (("predicate", "score", "metric"), "two"),
        (("predicate", "createdAt"), "yesterday"),
        (("predicate", "schemaVersion"), "2"),
        (("predicateType",), "https://slsa.dev/provenance/v1"),
        (("subject", 0, "digest", "sha256"), "00"),
        (("subject", 0, "name"), "other.py"),
    ],
)
def test_what_does_not_fit(connection: Connection, path: tuple[str | int, ...], value: object) -> None:
    body = body_of(checked(connection, local.propose(connection), runs(0.2, count=4)).attestation)
    at(body, path[:-1])[path[-1]] = value
    assert problems(body)


def test_its_words_are_the_codes_words() -> None:
    definitions = SCHEMA["$defs"]
    assert definitions["reason"]["enum"] == [reason.value for reason in Reason]
    tables = definitions["policy"]["properties"]
    written = JudgePolicy().as_json()
    assert set(tables) == set(written)
    for name, table in written.items():
        if isinstance(table, dict):
            assert set(tables[name]["properties"]) == set(tables[name]["required"]) == set(table)
    assert (
        set(definitions["run"]["properties"])
        == set(definitions["run"]["required"])
        == set(replay_run("x", 1.0).as_json())
    )
