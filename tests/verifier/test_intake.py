"""Intake: what a proposal's bytes may be, as tables; who is at fault where they are not."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.connection.opening import Connection
from chain.irys.client import Role
from chain.program.accounts import Proposal
from chain.program.instructions import ClaimReview
from common.terminal import View
from tests import local
from trainer.judging.policy import JudgePolicy
from trainer.judging.verdict import CaseFinding, Fault, Reason
from trainer.project import bundle, protocol, task
from trainer.project.source import SourceCaps
from verifier import check, show
from verifier.intake import Case, check_source, local_case, open_case, read_candidate

SNAPSHOT: Mapping[str, bytes] = local.SMOKE.files
SURFACE = protocol.parse(local.PROTOCOL).surface
CAPS = SourceCaps()
RANDOM = random.Random(0).randbytes(200_000)

# What upstream-style scripts hold and an over-eager reader would take for something else.
HONEST = {
    "the baseline itself": local.TRAIN,
    "mx.eval and model.eval": b"import mlx.core as mx\nmx.eval(loss)\nmodel.eval()\n",
    "environment variables": b"import os\nos.environ['OMP_NUM_THREADS'] = '2'\nx = os.environ.get('HOME')\n",
    "reflection": b"f = getattr(model, 'layers')\nsetattr(model, 'x', vars(model)['y'])\nglobals()['z'] = 1\n",
    "importlib": b"import importlib\nm = importlib.import_module('math')\n",
    "subprocess for a git hash": b"import subprocess\nsubprocess.run(['git', 'rev-parse', 'HEAD'])\n",
    "words in comments": b"# eval exec __import__ open(val_shard) base64 pickle socket\n",
    "a long docstring": b'"""' + b"About this script. " * 2_000 + b'"""\n',
    "long docstrings of functions": b"def f():\n    '''" + b"word " * 5_000 + b"'''\n    return 1\n",
    "a table of schedules": b"LRS = [" + b"0.001, " * 1_000 + b"]\n",
    "a long name": b"x" * 5_000 + b" = 1\n",
    "code that repeats": b"x = 1\n" * 10_000,
    "text in other scripts": "# Größe 学習率 λ = 0.1\nλ = 0.1\n".encode(),
    "not Python at all": b"this is a mistake, and it will crash when it is run (",
    "nothing": b"",
    "deep nesting": b"x = " + b"(" * 150 + b"1" + b")" * 150 + b"\n",
}


def with_train(source: bytes) -> dict[str, bytes]:
    return {**SNAPSHOT, "train.py": source}


@pytest.mark.parametrize("name", HONEST)
def test_honest_scripts_pass(name: str) -> None:
    assert check_source(SNAPSHOT, with_train(HONEST[name]), CAPS) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"# " + b"x" * 131_100, "131,102 bytes; the limit is 131,072"),
        (b"DATA = '''" + RANDOM.hex().encode()[:120_000] + b"'''", "compressed; the limit is 32,768"),
        (b"# " + RANDOM.hex().encode()[:100_000], "compressed"),
        (b"DATA = '" + b"a" * 8_193 + b"'", "literal of 8,193 characters"),
        (b"DATA = b'" + b"a" * 8_193 + b"'", "literal of 8,193 characters"),
        (b"DATA = ('" + b"a" * 5_000 + b"'\n'" + b"b" * 5_000 + b"')", "literal of 10,000 characters"),
        (b"def f():\n    x = 1\n    '''" + b"a" * 9_000 + b"'''\n", "literal of 9,000"),
        (b"f(f'" + b"a" * 9_000 + b"{x}')", "literal of 9,000"),
        (b"DATA = [" + b"1," * 1_025 + b"]", "literal with 1,025 elements"),
        (b"DATA = (" + b"1," * 1_025 + b")", "literal with 1,025 elements"),
        (b"DATA = {" + b"1," * 1_025 + b"}", "literal with 1,025 elements"),
        (b"DATA = {" + b"".join(b"%d:1," % n for n in range(1_025)) + b"}", "literal with 1,025 elements"),
        (b"class A:\n    DATA = [" + b"1," * 1_025 + b"]", "literal with 1,025 elements"),
    ],
)
def test_what_is_too_large(source: bytes, words: str) -> None:
    (finding,) = check_source(SNAPSHOT, with_train(source), CAPS)
    assert (finding.reason, finding.fault) == (Reason.SOURCE_TOO_LARGE, Fault.BYTES)
    assert words in finding.detail
    assert finding.detail.endswith(".")


def test_at_the_caps_it_passes() -> None:
    for source in (
        b"DATA = '" + b"a" * 8_192 + b"'",
        b"DATA = [" + b"1," * 1_024 + b"]",
        b"# " + b"x" * 131_070,
    ):
        assert check_source(SNAPSHOT, with_train(source), CAPS) == []


def test_all_changed_files_count_together() -> None:
    half = b"# " + b"x" * 70_000
    assert check_source(SNAPSHOT, {**SNAPSHOT, "a.py": half}, CAPS) == []
    assert check_source(SNAPSHOT, {**SNAPSHOT, "a.py": half, "b.py": half}, CAPS) != []
    # what the snapshot holds is not the candidate's, and data files have no literals
    big = {**SNAPSHOT, "big.py": RANDOM}
    assert check_source(big, {**big, "train.py": b"x = 1\n"}, CAPS) == []
    assert check_source(SNAPSHOT, {**SNAPSHOT, "words.txt": b"'" + b"a" * 9_000 + b"'"}, CAPS) == []


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_any_source_gives_findings_not_errors(source: bytes) -> None:
    assert check_source(SNAPSHOT, with_train(source), CAPS) == []


# --- archives ---


def tar(
    files: Mapping[str, bytes],
    *more: tarfile.TarInfo,
    again: Mapping[str, bytes] | None = None,
    form: int = tarfile.USTAR_FORMAT,
) -> bytes:
    """A tar of the files, some of them `again`, then what has no content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in (*files.items(), *(again or {}).items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


BETTER = b"LR = 0.3\n"


@pytest.mark.parametrize(
    "archive",
    [
        tar(with_train(BETTER)),
        tar({"train.py": BETTER}),
        tar({"train.py": BETTER, "uv.lock": SNAPSHOT["uv.lock"]}),
        bundle.pack(with_train(BETTER)),
        # as honest tools write it: `git archive --prefix`, GNU tar of a folder, bsdtar on macOS
        tar({f"project-1.0/{path}": data for path, data in with_train(BETTER).items()}),
        tar({f"./{path}": data for path, data in with_train(BETTER).items()}, form=tarfile.GNU_FORMAT),
        tar({"._train.py": b"\x00\x05\x16\x07" + bytes(60), **with_train(BETTER)}),
    ],
)
def test_what_reads_as_a_candidate(archive: bytes) -> None:
    findings, tree = read_candidate(archive, SNAPSHOT, SURFACE, CAPS)
    assert findings == []
    assert tree == with_train(BETTER)


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not a tar",
        RANDOM[:10_240],
        tar(with_train(BETTER))[:2_048],
        b"\x1f\x8b" + bytes(1_022),
        tar({"../train.py": BETTER}),
        tar({"/etc/passwd": BETTER}),
        tar({"train.py": BETTER}, link("prepare.py", "/etc/passwd")),
        tar({"train.py": BETTER}, link("x", "train.py", tarfile.LNKTYPE)),
        tar({"train.py": BETTER}, link("x", "", tarfile.FIFOTYPE)),
        tar({"train.py": BETTER, "TRAIN.py": BETTER}),
        tar({**SNAPSHOT, "Train.py": BETTER}),
        tar({"train.py": BETTER}, again={"train.py": b"LR = 0.4\n"}),
        tar(with_train(BETTER), again={"prepare.py": b"mine"}),
    ],
)
def test_what_two_readers_may_see_otherwise_slashes_nobody(archive: bytes) -> None:
    """This was a rejection: a stake lost for `tar czf`, or for a link in the tree."""
    findings, tree = read_candidate(archive, SNAPSHOT, SURFACE, CAPS)
    assert [(f.reason, f.fault) for f in findings] == [(Reason.MALFORMED_ARCHIVE, Fault.FORM)]
    assert tree is None


def test_a_forbidden_file_that_differs_is_one_in_any_archive() -> None:
    mine = {**with_train(BETTER), "prepare.py": b"print('val_bpb: 0.1')\n"}
    findings, tree = read_candidate(tar(mine, link("x", "train.py")), SNAPSHOT, SURFACE, CAPS)
    assert [(f.reason, f.fault) for f in findings] == [(Reason.FORBIDDEN_CHANGE, Fault.BYTES)]
    assert tree is None


@pytest.mark.parametrize(
    ("archive", "reason", "readable"),
    [
        (tar({"train.py": bytes(17 << 20)}), Reason.SOURCE_TOO_LARGE, False),
        (tar({**with_train(BETTER), "prepare.py": b"print('val_bpb: 0.1')\n"}), Reason.FORBIDDEN_CHANGE, True),
        (tar({**with_train(BETTER), "uv.lock": b"x"}), Reason.FORBIDDEN_CHANGE, True),
        (tar({**with_train(BETTER), "sitecustomize.py": b"x"}), Reason.FORBIDDEN_CHANGE, True),
        (tar({**with_train(BETTER), "mlx/__init__.py": b"x"}), Reason.FORBIDDEN_CHANGE, True),
        (tar(with_train(b"X = '" + b"a" * 9_000 + b"'")), Reason.SOURCE_TOO_LARGE, True),
    ],
)
def test_what_is_wrong_with_an_archive(archive: bytes, reason: Reason, readable: bool) -> None:
    findings, tree = read_candidate(archive, SNAPSHOT, SURFACE, CAPS)
    assert [(f.reason, f.fault) for f in findings] == [(reason, Fault.BYTES)]
    assert (tree is not None) == readable
    if tree is not None:  # what may not be changed is as in the snapshot whatever the archive says
        assert {path: data for path, data in tree.items() if path != "train.py"} == {
            path: data for path, data in SNAPSHOT.items() if path != "train.py"
        }


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_damaged_archive_gives_findings_not_errors(data: st.DataObject) -> None:
    whole = bytearray(tar({"train.py": BETTER, "prepare.py": SNAPSHOT["prepare.py"][:600]}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    findings, tree = read_candidate(bytes(whole), SNAPSHOT, SURFACE, CAPS)
    assert findings or tree is not None
    assert all(finding.fault in (Fault.BYTES, Fault.FORM) for finding in findings)


# --- from the chain ---


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with local.connect(local.home_with_project(tmp_path)) as connection:
        yield connection


def opened(connection: Connection, proposal: Proposal) -> Case:
    return open_case(connection, proposal, JudgePolicy())


def test_an_honest_proposal(connection: Connection) -> None:
    tags = [("Hardware-Class", "cpu-x-2c"), ("Data-Snapshot", "ab" * 32)]
    proposal = local.propose(connection, code=local.archive(BETTER), tags=tags)
    case = opened(connection, proposal)
    assert case.findings == ()
    assert case.candidate == with_train(BETTER)
    assert case.task.incumbent == SNAPSHOT
    assert (case.miner_class, case.miner_data) == ("cpu-x-2c", "ab" * 32)
    assert case.code_hash == sha256(local.archive(BETTER)).hexdigest()
    assert case.log_hash == proposal.benchmark_log_hash.hex()


def test_an_approved_proposal_is_judged_against_the_best_before_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not against itself, which it could never beat. A check lists the project's proposals once: they may be many."""
    codes = [local.archive(BETTER + b"# %d\n" % n) for n in range(3)]
    client, verifier = connection.client, local.verifier_of(connection)
    metric = local.convention(client.project(0)).to_score
    for n, code in enumerate(codes):
        local.propose(connection, code=code)
        client.call(ClaimReview(n), verifier)
        client.approve(
            verifier,
            client.proposal(n),
            client.project(0),
            verified_score=metric(Decimal("2.4") - n),
            metrics=connection.publish(verifier, Role.VERIFIER_METRICS, b"{}", "application/json"),
        )
    for n, code in enumerate(codes):
        case = opened(connection, client.proposal(n))
        before = [SNAPSHOT, *({**SNAPSHOT, **bundle.read_archive(code).files} for code in codes)]
        assert case.code_hash == sha256(code).hexdigest()
        assert [case.task.incumbent, *(rung.tree for rung in case.below)] == before[n::-1]
        assert show.already(client.proposal(n)).endswith("against the best before it, and changes nothing on chain.")
    later = opened(connection, local.propose(connection))
    assert [rung.arm for rung in later.below] == ["proposal 1", "proposal 0", "snapshot"]
    listed, proposals = list[int](), client.proposals

    def counted(number: int) -> list[Proposal]:
        listed.append(number)
        return proposals(number)

    monkeypatch.setattr(client, "proposals", counted)
    monkeypatch.setattr(check, "_check", lambda connection, case, *_, **__: case)
    for proposal in (client.proposal(1), client.proposal(3)):
        check.check_proposal(connection, proposal, verifier, JudgePolicy(), View(quiet=True))
    assert listed == [0, 0]


def test_a_log_without_tags_says_nothing(connection: Connection) -> None:
    case = opened(connection, local.propose(connection))
    assert (case.findings, case.miner_class, case.miner_data) == ((), "", "")


def faults(case: Case) -> list[tuple[Reason, Fault]]:
    return [(finding.reason, finding.fault) for finding in case.findings]


def test_other_bytes_than_the_hash_on_chain_are_the_miners_fault(connection: Connection) -> None:
    """The miner's own signed item of that id holds other bytes: proven, on any machine."""
    proposal = local.propose(connection)
    other = connection.publish(local.miner_of(connection), Role.PROPOSAL_CODE, b"other bytes", "application/x-tar")
    case = opened(connection, replace(proposal, code_irys_id=other[1]))
    assert faults(case) == [(Reason.HASH_MISMATCH, Fault.BYTES)]
    assert sha256(b"other bytes").hexdigest() in case.findings[0].detail
    assert case.candidate == SNAPSHOT
    case = opened(connection, replace(proposal, benchmark_log_irys_id=other[1]))
    assert faults(case) == [(Reason.HASH_MISMATCH, Fault.BYTES)]
    assert "benchmark log" in case.findings[0].detail


def test_somebody_elses_item_proves_nothing(connection: Connection) -> None:
    proposal = local.propose(connection)
    other = connection.publish(local.stranger(connection), Role.PROPOSAL_CODE, b"other bytes", "application/x-tar")
    case = opened(connection, replace(proposal, code_irys_id=other[1]))
    assert faults(case) == [(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST)]


def test_the_right_bytes_signed_by_another_are_not_taken(connection: Connection) -> None:
    """The copy of a stranger's item has the right hash and the wrong owner."""
    proposal = local.propose(connection)
    copied = connection.publish(local.stranger(connection), Role.PROPOSAL_CODE, local.archive(), "application/x-tar")
    assert copied[0] == proposal.code_hash
    case = opened(connection, replace(proposal, code_irys_id=copied[1]))
    assert faults(case) == [(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST)]


def test_what_is_not_to_be_had_is_nobodys_fault(connection: Connection) -> None:
    case = opened(connection, replace(local.propose(connection), code_irys_id=b"\7" * 32))
    assert faults(case) == [(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST)]


def test_bytes_damaged_in_the_store_are_not_the_miners(connection: Connection) -> None:
    """A gateway that has lost or altered an item cannot get a miner slashed."""
    proposal = local.propose(connection)
    (stored,) = (connection.home / "irys").rglob(proposal.code_irys_id.hex())
    data = bytearray(stored.read_bytes())
    data[-1_000] ^= 1
    stored.write_bytes(bytes(data))
    shutil.rmtree(connection.home / "cache", ignore_errors=True)
    case = opened(connection, proposal)
    assert faults(case) == [(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST)]


def test_cached_bytes_are_not_taken_without_their_signature(connection: Connection) -> None:
    proposal = local.propose(connection)
    assert opened(connection, proposal).findings == ()
    (stored,) = (connection.home / "irys").rglob(proposal.code_irys_id.hex())
    stored.unlink()
    assert faults(opened(connection, proposal)) == [(Reason.ARTIFACT_UNAVAILABLE, Fault.HOST)]


def test_a_bad_archive_with_the_right_hash(connection: Connection) -> None:
    case = opened(connection, local.propose(connection, code=b"no tar"))
    assert faults(case) == [(Reason.MALFORMED_ARCHIVE, Fault.FORM)]


def test_a_local_candidate(connection: Connection) -> None:
    parsed = task.read(local.artifacts())
    case = local_case(connection.client.project(0), parsed, BETTER, CAPS)
    assert (case.proposal, case.findings, case.candidate) == (None, (), with_train(BETTER))
    assert case.code_hash == sha256(bundle.pack(with_train(BETTER))).hexdigest()
    big = local_case(connection.client.project(0), parsed, b"X = '" + b"a" * 9_000 + b"'", CAPS)
    assert faults(big) == [(Reason.SOURCE_TOO_LARGE, Fault.BYTES)]
    assert isinstance(big.findings[0], CaseFinding)
