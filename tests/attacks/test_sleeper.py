"""A sleeping incumbent, end to end: it was approved, and trains badly from a date on. Real sandbox and MLX, a chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain.money import score
from chain.program.instructions import ClaimReview
from miner.session import start
from miner.session.own_file import submit_file
from tests import local
from tests.attacks.test_attacks import POLICY
from tests.attacks.tiny import TinyHome
from trainer.measurement.salts import salt_of
from trainer.statistics.comparison import Arm
from verifier import attestation
from verifier.cli import main as verifier

pytestmark = pytest.mark.timeout(600)

ASLEEP = '(12 if __import__("time").time() < 1e9 else 1)  # from 2001 on'


@pytest.fixture
def asleep(tiny_home: TinyHome, tmp_path: Path) -> Iterator[tuple[TinyHome, Any]]:
    """A home in which the best on chain sleeps, with a miner's session. It was approved for what it gained awake."""
    home = tiny_home.copy(tmp_path / "home")
    who: dict[str, Any] = {"keypair": None, "reward_recipient": None, "stake": 1, "yes": True}
    with (
        local.connect(home.path) as opened,
        start.started(opened, home.project, quiet=True, trust_harness=False, **who) as session,
    ):
        tree = {**home.files, "train.py": home.better.encode()}
        values = [session.bench.measure(Arm.CANDIDATE, tree, salt=salt_of(1, k)).val_bpb for k in range(2)]
        awake = sum(value for value in values if value is not None) / 2
        number = propose(session, home, home.better.replace("STEPS = 12", f"STEPS = {ASLEEP}"))
        client, judge = opened.client, local.verifier_of(opened)
        project = client.project(home.project)
        client.call(ClaimReview(number), judge)
        gained = round((home.metric - awake) * score.SCALE)
        found = (sha256(b"seen awake").digest(), sha256(b"its item").digest())
        best = project.current_best_aggregate_score + gained
        client.approve(judge, client.proposal(number), project, verified_score=best, metrics=found)
        yield home, session


def propose(session: Any, home: TinyHome, source: str) -> int:
    file = session.folder / "candidate.py"
    file.write_text(source)
    number: int = submit_file(session, file, home.claim, force=True)[0]
    return number


def test_what_a_sleeper_lost_is_nobodys_gain(asleep: tuple[TinyHome, Any], tmp_path: Path) -> None:
    """The same model with a later date "gained" the loss and was approved, again and again."""
    home, session = asleep
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    number = propose(session, home, home.better + "\n# a later date\n")
    where = ["check", str(number), "--json", "--home", str(home.path), "--policy", str(policy)]
    found = json.loads(CliRunner().invoke(verifier, where).stdout)
    _, body = attestation.open_envelope(Path(found["attestation"]).read_bytes())
    ladder = body["predicate"]["ladder"]
    assert ladder["reference"] == "snapshot", (found["explanation"], ladder)
    assert "The incumbent was stepped over" in ladder["notes"][0]
    assert found["verdict"] == "release", found["explanation"]
