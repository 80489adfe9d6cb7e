"""The official validator's public gates, against archives of the live project's kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from miner.staking import gates
from tests import local
from trainer.judging.policy import JudgePolicy
from trainer.project import bundle, protocol
from verifier.intake import read_candidate

ARMLX = (Path(__file__).parents[3] / "configs" / "armlx" / "protocol.json").read_bytes()
SPEC = protocol.parse(ARMLX)
PLAIN = b"LR = 0.1\nprint('val_bpb: 1')\n"


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        ({"train.py": PLAIN}, []),
        ({"train.py": PLAIN, ".autoresearch/publish/protocol.json": ARMLX}, []),
        ({"train.py": PLAIN, ".gitignore": b"", "CONTRIBUTING.md": b""}, []),
        ({"train.py": b"mx.eval(loss)\n"}, ["train.py contains 'eval(', a red flag"]),
        (
            {"train.py": b"mx.async_eval (x); exec('')"},
            ["train.py contains 'eval (', a red", "train.py contains 'exec('"],
        ),
        ({"train.py": b"evaluate_bpb(model)\nmx.evaluate = mx.eval\n"}, []),
        ({"train.py": PLAIN, "notes.md": b"curl http://x"}, ["notes.md is on no list"]),
        # a whole repository, as its own miners archive it
        ({"train.py": PLAIN, "prepare.py": b""}, ["prepare.py is on its list of forbidden files"]),
        ({"train.py": PLAIN, "README.md": b""}, ["README.md is on its list of forbidden files"]),
        ({"train.py": PLAIN, "pyproject.toml": b""}, ["pyproject.toml is on no list"]),
        ({"train.py": PLAIN, "protocol.json": ARMLX}, ["protocol.json is on no list"]),
        # its globs match a file's name in any folder, and code of a repository's automation never passes
        ({"train.py": PLAIN, "deep/er/prepare.py": b""}, ["deep/er/prepare.py is on its list of forbidden files"]),
        ({"deep/er/train.py": PLAIN}, []),
        ({"train.py": PLAIN, ".github/workflows/a/b.yml": b""}, [".github/workflows/a/b.yml is on its list of forb"]),
        ({"train.py": PLAIN, ".github/dependabot.yml": b""}, []),
    ],
)
def test_what_its_gates_reject(files: dict[str, bytes], reasons: list[str]) -> None:
    found = gates.refusals(bundle.pack(files), SPEC)
    assert len(found) == len(reasons)
    for said, reason in zip(found, reasons, strict=True):
        assert said.startswith(reason)


def test_a_harness_that_is_not_forbidden_passes() -> None:
    document = json.loads(ARMLX)
    document["mutableSurface"]["forbiddenGlobs"] = []
    spec = protocol.parse(json.dumps(document).encode())
    assert gates.refusals(bundle.pack({"train.py": PLAIN, "prepare.py": b"", "README.md": b""}), spec) == []


def test_the_packed_proposal_passes_and_our_own_verifier_reads_it() -> None:
    """The smallest archive: all else the verifier has from the snapshot, and the protocol in it is no change."""
    snapshot = {"train.py": b"LR = 0.2\n", "prepare.py": b"harness\n", "README.md": b"x\n", "uv.lock": b"x\n"}
    candidate = {**snapshot, "train.py": PLAIN}
    packed = gates.pack(candidate, SPEC, ARMLX)
    assert bundle.read_archive(packed).files == {"train.py": PLAIN, ".autoresearch/publish/protocol.json": ARMLX}
    assert gates.refusals(packed, SPEC) == []
    assert read_candidate(packed, snapshot, SPEC.surface, JudgePolicy().source) == ([], candidate)
    assert gates.refusals(bundle.pack(candidate), SPEC) != []


def test_the_bundled_train_py_has_a_red_flag() -> None:
    packed = gates.pack(local.SMOKE.files, SPEC, ARMLX)
    assert gates.refusals(packed, SPEC) == ["train.py contains 'eval(', a red flag"]
    assert gates.refusals(gates.pack({"train.py": PLAIN}, SPEC, ARMLX), SPEC) == []


def test_records_of_other_clients_are_no_change_and_never_code() -> None:
    """Their miners archive what they committed; what they keep beside the code is left out, mutable or not said."""
    theirs = {**local.SMOKE.files, "train.py": PLAIN, ".autoresearch/mine/network_state.json": b"{}"}
    surface = protocol.parse(local.PROTOCOL).surface
    findings, candidate = read_candidate(bundle.pack(theirs), local.SMOKE.files, surface, JudgePolicy().source)
    assert findings == []
    assert candidate == {**local.SMOKE.files, "train.py": PLAIN}
    hidden = bundle.pack({**theirs, ".autoresearchx/a.py": b"x = 1\n"})
    (finding,), _ = read_candidate(hidden, local.SMOKE.files, surface, JudgePolicy().source)
    assert ".autoresearchx/a.py" in finding.detail
