"""Artifacts and other clients' files, mutated: a value or an error of ours, never another exception."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.errors import InvalidData
from chain.irys.funding import Deposit
from common import baseline
from common.baseline import InvalidBaseline
from tests import local
from tests.fuzz.mutate import TIME_LIMIT, fuzzed, mutated, mutated_json, mutated_json_text, outcome
from tests.trainer.judging.cases import failing, replay_run, runs
from tests.verifier.cases import checked
from trainer.errors import InvalidBundle, InvalidProtocol
from trainer.project import bundle, protocol, task
from trainer.project.bundle import BLOCK, UnsafeArchive
from verifier import attestation
from verifier.audit import audit, passed

pytestmark = pytest.mark.timeout(TIME_LIMIT)

TESTS = Path(__file__).parents[1]
KEY = Keypair.from_seed(bytes(range(32)))


# -- protocols ----------------------------------------------------------------------------------------

PROTOCOLS = [(TESTS.parent / "configs" / name / "protocol.json").read_bytes() for name in ("armlx", "smoke")]
PROTOCOL_DOCUMENTS = [json.loads(data) for data in PROTOCOLS]


@fuzzed
@given(mutated_json_text(PROTOCOL_DOCUMENTS) | mutated(PROTOCOLS))
def test_protocols(data: bytes) -> None:
    found = outcome(InvalidProtocol, lambda: protocol.parse(data))
    if found is not None:
        assert protocol.parse(protocol.dump(found)).raw == found.raw


# -- archives -----------------------------------------------------------------------------------------

LONG = "a-folder/" * 12 + "a-long-name.py"
ARCHIVES = [
    bundle.pack({"train.py": b"print('---')\n", "src/é.py": b"", "src/deep/b.txt": b"x" * 700}),
    bundle.pack({LONG: b"1", "z": bytes(513)}),
    bundle.pack({}),
]


def mended(data: bytes) -> bytes:
    """With the checksum of every block that looks like a header made right, so that what is behind it is read."""
    blocks = [bytearray(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    for block in blocks:
        if len(block) == BLOCK and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


@fuzzed
@given(mutated(ARCHIVES), st.booleans())
def test_archives(data: bytes, mend: bool) -> None:
    data = mended(data) if mend else data
    found = outcome(UnsafeArchive, lambda: bundle.read_archive(data))
    if found is not None:
        bundle.check(found.files)
        assert bundle.read_archive(bundle.pack(found.files)).files == found.files


# -- attestations -------------------------------------------------------------------------------------


@cache
def attestations() -> tuple[list[bytes], list[dict[str, Any]]]:
    """Sealed attestations of several verdicts, made once, and their statements."""
    with TemporaryDirectory() as folder, local.connect(local.home_with_project(Path(folder))) as connection:
        proposal = local.propose(connection)
        crash = [replay_run("incumbent", 2.5), failing("candidate", "crash"), failing("candidate", "crash")]
        sealed = [checked(connection, proposal, measured).attestation for measured in (runs(0.2), runs(-0.05), crash)]
    return sealed, [attestation.open_envelope(data)[1] for data in sealed]


envelopes = st.deferred(lambda: mutated(attestations()[0]))
documents = st.deferred(lambda: mutated_json_text([json.loads(data) for data in attestations()[0]]))
statements = st.deferred(lambda: mutated_json(attestations()[1]))


@fuzzed
@given(envelopes | documents)
def test_envelopes(data: bytes) -> None:
    opened = outcome(InvalidData, lambda: attestation.open_envelope(data))
    if opened is not None:
        assert opened[1] in attestations()[1]


@fuzzed
@given(statements)
def test_statements_that_are_signed_all_the_same(body: Any) -> None:
    try:
        sealed = attestation.seal(body, KEY)
    except (ValueError, TypeError):  # what no JSON can hold was never signed
        return
    found = outcome(InvalidData, lambda: audit(sealed, None, {}))
    if found is not None:
        assert not passed(found[0])  # the signer is not the verifier that it names


# -- the project's artifacts and other clients' files -------------------------------------------------

BENCHMARK = json.loads(local.artifacts().benchmark)
BASELINE = json.loads(local.artifacts().baseline_metrics)
SAMPLES = json.loads((TESTS / "common" / "examples" / "samples.json").read_bytes())
DEPOSIT = json.loads(Deposit(str(KEY.sign_message(b"x")), 5, 6, "payer", "address", "uploader", "devnet").dump())


@fuzzed
@given(mutated_json_text([BENCHMARK]))
def test_benchmarks(data: bytes) -> None:
    found = outcome(InvalidBundle, lambda: task.Benchmark.parse(data))
    if found is not None:
        assert task.Benchmark.parse(found.dump()) == found


@fuzzed
@given(mutated_json_text([BASELINE, SAMPLES]))
def test_baselines(data: bytes) -> None:
    value = outcome(InvalidBaseline, lambda: baseline.read(data, "val_bpb"))
    assert value is None or value.metric.is_finite()


@fuzzed
@given(mutated_json_text([DEPOSIT]))
def test_deposits_on_record(data: bytes) -> None:
    found = outcome(InvalidData, lambda: Deposit.parse(data))
    if found is not None:
        assert Deposit.parse(found.dump()) == found
