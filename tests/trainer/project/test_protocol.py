"""The protocol model against the live ARMLX bundle and against bytes from outside."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import InvalidProtocol
from trainer.project import protocol

ARMLX = (Path(__file__).parents[3] / "configs" / "armlx" / "protocol.json").read_bytes()


def changed(path: str, value: object) -> bytes:
    """ARMLX with one place set, or deleted where `value` is ..."""
    document = json.loads(ARMLX)
    *parents, last = path.split(".")
    place: Any = document
    for key in parents:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


def test_armlx() -> None:
    found = protocol.parse(ARMLX)
    assert found.bundle_id == "autoresearch-mlx-main-ba6ebf6-20260509"
    assert found.execution == protocol.Execution(("uv", "run", "train.py"), ".", 300.0, 900.0)
    assert found.surface.allowed == ("train.py",)
    assert found.surface.harness == ("prepare.py",)
    assert found.primary.name == "val_bpb"
    assert found.primary.direction == "minimize"
    assert [metric.name for metric in found.secondary] == ["peak_vram_mb", "training_seconds"]
    assert found.ml_train == protocol.MlTrain(eval_tokens=1_572_864)
    assert found.mining_loop == protocol.MiningLoop()
    assert found.min_improvement_bips is None
    assert found.offline
    assert found.notes == ()
    assert found.digest == sha256(ARMLX).hexdigest()
    assert protocol.dump(found) == ARMLX


def test_optional_sections_are_read() -> None:
    document = json.loads(ARMLX)
    document["miningLoop"] = {"maxTrials": 7, "maxSessionWallSeconds": 60, "maxConsecutiveNonImprovements": 3}
    document["measurement"]["minScoreImprovementBips"] = 25
    document["archetypeExtensions"]["ml_train"] |= {"sequenceLength": 64, "vocabSize": 512}
    found = protocol.parse(json.dumps(document).encode())
    assert found.mining_loop == protocol.MiningLoop(7, 60.0, 3)
    assert found.min_improvement_bips == 25
    assert found.ml_train == protocol.MlTrain(1_572_864, 64, 512)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schemaKind", "bundle"),
        ("schemaKind", ...),
        ("protocolVersion", "2.0"),
        ("execution", ["uv"]),
        ("execution.command", ...),
        ("execution.command", "uv run train.py > run.log 2>&1"),
        ("execution.command", "uv run train.py; curl evil"),
        ("execution.command", "uv run 'train.py"),
        ("execution.cwd", "../elsewhere"),
        ("execution.cwd", "/"),
        ("execution.stopCondition.type", "steps"),
        ("execution.stopCondition.trainingSecondsBudget", "300"),
        ("execution.stopCondition.trainingSecondsBudget", True),
        ("execution.stopCondition.trainingSecondsBudget", 0),
        ("execution.stopCondition.trainingSecondsBudget", 10**30),
        ("execution.hardTimeoutSeconds", "900"),
        ("mutableSurface.allowedGlobs", []),
        ("mutableSurface.allowedGlobs", "train.py"),
        ("mutableSurface.forbiddenGlobs", "prepare.py"),
        ("measurement.primaryMetric.direction", "down"),
        ("measurement.primaryMetric.extract.kind", "jsonpath"),
        ("measurement.primaryMetric.extract.pattern", "val_bpb"),
        ("measurement.primaryMetric.extract.pattern", "(unclosed"),
        ("measurement.primaryMetric.extract.pattern", "(" + "a" * 300 + ")"),
        ("measurement.minScoreImprovementBips", -1),
        ("miningLoop.maxTrials", 0),
        ("archetypeExtensions.ml_train.evalTokens", 1.5),
        ("archetypeExtensions.ml_train.vocabSize", 2**17),
    ],
)
def test_a_refusal_names_the_path(path: str, value: object) -> None:
    with pytest.raises(InvalidProtocol, match=re.escape(f"The protocol's {path} must be")) as caught:
        protocol.parse(changed(path, value))
    assert caught.value.problem.endswith(".")
    assert caught.value.cure.endswith(".")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("mutableSurface.allowedGlobs", ["train.py", "a/../../b"], "mutableSurface.allowedGlobs[1]"),
        ("mutableSurface.allowedGlobs", [7], "mutableSurface.allowedGlobs[0]"),
        ("mutableSurface.forbiddenGlobs", ["x/../prepare.py"], "mutableSurface.forbiddenGlobs[0]"),
        ("execution", ..., "execution.stopCondition.type"),
    ],
)
def test_a_refusal_names_the_element(path: str, value: object, named: str) -> None:
    with pytest.raises(InvalidProtocol, match=re.escape(f"The protocol's {named} must be")):
        protocol.parse(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "note"),
    [
        ("meta.protocolBundleId", ..., "no usable meta.protocolBundleId"),
        ("meta.protocolBundleId", "a\nb", "no usable meta.protocolBundleId"),
        ("meta.purposeStatement", "Improve val_bpb.\nOne machine.\n", ""),
        ("meta.purposeStatement", ..., ""),
        ("meta.purposeStatement", 7, ""),
        (
            "execution.hardTimeoutSeconds",
            240,
            "hard timeout of 240 s is below its training budget of 300 s: 900 s apply",
        ),
        ("execution.cwd", "./", ""),
        ("execution.stopCondition.excludeCompilationFromBudget", "yes", ""),
        ("environment", None, ""),
        ("miningLoop", None, ""),
        ("provenance", ..., ""),
        ("provenance.gitWorkflow.branchPattern", "main", ""),
        ("provenance.resultsLog.path", "../results.tsv", ""),
        ("mutableSurface.allowedGlobs", ["./train.py"], ""),
        ("mutableSurface.forbiddenGlobs", None, ""),
        ("mutableSurface.forbiddenGlobs", ["/Users/me/cache"], "mutableSurface.forbiddenGlobs[0] names nothing inside"),
        ("mutableSurface.forbiddenGlobs", [f"folder{n}/**" for n in range(500)], ""),
        ("measurement.secondaryMetrics", [{"name": "x"}], "measurement.secondaryMetrics[0].extract.kind"),
        ("measurement.secondaryMetrics", None, ""),
    ],
)
def test_what_a_measurement_does_not_need_never_blocks(path: str, value: object, note: str) -> None:
    """Other clients' schema accepts each of these; what it comes to is said where it matters."""
    found = protocol.parse(changed(path, value))
    assert found.surface.allowed == ("train.py",)
    assert found.execution.cwd == "."
    assert found.execution.hard_timeout_seconds >= 300
    assert found.bundle_id.isprintable()
    if note:
        (said,) = found.notes
        assert note in said
    else:
        assert found.notes == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"schemaKind": "protocol", "schemaKind": "protocol"}',
        b'{"schemaKind": NaN}',
        b'{"schemaKind": [1e999]}',
        b'{"schemaKind": "\\ud800"}',
        b'{"schemaKind": ' + b"9" * 5000 + b"}",
        b" " * (protocol.MAX_BYTES + 1),
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidProtocol):
        protocol.parse(data)


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        (r"^val_bpb:\s+([0-9]+(?:\.[0-9]+)?)$", True),
        (r"^val_bpb\s*:\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*$", True),
        (r"(?m)^loss=(\S+)$", True),
        (r"^([^:]+):([^:]+):([^:]+)", True),
        (r"([^:]+):([^:]+):([^:]+)", False),
        (r"(a*a*)b", True),
        (r"^(a*a*a*a?a?a?)b", True),
        (r"^(a*a*a*(?:ab|ba|aab|bba|c))b", False),
        (r"(\d{1,3}(?:,\d{3})*)", True),
        (r"(a+)+b", False),
        (r"(a|aa)*b", False),
        (r"(?:a?){30}(a)", False),
        (r"(a?a?a?a?a?aaaaa)", False),
        (r"(.*.*.*.*x)", False),
        (r"(\s*\w*\s*\d*\w*\S*\S*x)", False),
        (r"(a)\1", False),
        (r"(?=a)(a)", False),
        # as other clients write them
        (r"(?i)(a)", True),
        (r"(?i:a)(b)", True),
        (r"(?im)^val_bpb:\s*([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*$", True),
        (r"val_bpb[:=]\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)", True),
        (r"\bval_bpb\b\s*:\s*(\d+\.\d+)", True),
        # neither case nor a first character that may repeat opens a door
        (r"(?i)^([a-z]*[A-Z]*\w*a*b)", False),
        (r"(?i)([ab]*[AB]*A*)c", False),
        (r"1\d*\d*\d*(x)", False),
    ],
)
def test_patterns_that_could_run_away_are_refused(pattern: str, accepted: bool) -> None:
    data = changed("measurement.primaryMetric.extract.pattern", pattern)
    if accepted:
        assert protocol.parse(data).primary.pattern.pattern == pattern
    else:
        with pytest.raises(InvalidProtocol, match=r"measurement\.primaryMetric\.extract\.pattern"):
            protocol.parse(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def paths(document: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every place in a document."""
    found = []
    for key, value in document.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += paths(value, (*prefix, key))
    return found


@given(st.dictionaries(st.text().map(lambda key: "x-" + key), JSON, max_size=4))
def test_unknown_fields_survive(extra: dict[str, Any]) -> None:
    document = json.loads(ARMLX)
    document |= extra
    document["execution"] |= extra
    found = protocol.parse(json.dumps(document).encode())
    assert protocol.parse(protocol.dump(found)).raw == document


@given(st.data(), JSON)
def test_any_change_is_read_or_refused(data: st.DataObject, value: object) -> None:
    document = json.loads(ARMLX)
    *parents, last = data.draw(st.sampled_from(paths(document)))
    place = document
    for key in parents:
        place = place[key]
    place[last] = copy.deepcopy(value)
    with contextlib.suppress(InvalidProtocol):
        assert protocol.parse(json.dumps(document).encode()).raw == document


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(InvalidProtocol):
        protocol.parse(data)
