"""Every attack as a proposal on chain, and what `verifier check` says of it: real sandbox, real MLX, no mocks.

Proposals are submitted as a miner does and checked by the command itself, two at a time. No attack may be approved,
an honest improvement must be, before and after all of them, and the verifier's home must be as it was.

A verdict needs five runs or more. Each kind of answer is tried as a whole verdict (`WHOLE`); of the other scripts only
the run that decides is made, by the same measurement, and what a check finds in it has to be what the verdict names;
that such a finding rejects is in the tables of `tests/trainer/judging`.
ATTACKS=whole in the environment checks every script by the command.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from solders.keypair import Keypair

from chain.irys.client import Role
from chain.program.events import ProposalSubmitted
from miner.context.context import SessionContext
from miner.session import start
from miner.session.own_file import submit_file
from miner.staking import submit
from tests import local
from tests.attacks import cases, tiny
from tests.attacks.cases import NO_GAIN, Attack, rejected
from tests.attacks.tiny import TinyHome
from tests.trainer.judging.cases import replay_run
from trainer.judging.judge import run_findings
from trainer.judging.verdict import CaseFinding, Fault, Reason, VerdictKind
from trainer.measurement.run import Run
from trainer.measurement.salts import salt_of
from trainer.project import bundle
from trainer.statistics.comparison import Arm
from verifier.cli import main as verifier
from verifier.policy import load

pytestmark = pytest.mark.timeout(600)

Verdict = tuple[VerdictKind, Reason]
APPROVED = {(VerdictKind.APPROVE, Reason.IMPROVED)}
UNDECIDED = {*NO_GAIN, (VerdictKind.RELEASE, Reason.TOO_NOISY)}
BUSY = {Reason.TOO_NOISY, Reason.INCUMBENT_FAILS}  # of a machine that has other work
# Fewer runs than by default where the answer is far from doubtful: one look after one candidate run can reject.
POLICY = """\
[comparison]
first_rejection = 1
[verdict]
calm = false
[budget]
grace_seconds = 1.5
[holdout]
tokens = 4096
"""
ROOT = Path(__file__).resolve().parents[2]


# --- archives by hand -----------------------------------------------------------------------------


def member(path: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    for name, value in fields.items():
        setattr(info, name, value)
    return info


def tar(files: Mapping[str, bytes], *odd: tarfile.TarInfo, more: Collection[tuple[str, bytes]] = ()) -> bytes:
    """A POSIX tar of `files`, then `more` files, then members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (*files.items(), *more):
            archive.addfile(member(name, size=len(data)), io.BytesIO(data))
        for info in odd:
            archive.addfile(info)
    return out.getvalue()


# Two readers may see two trees: nothing is approved, and no stake is slashed for what an honest tool may write.
MALFORMED = {(VerdictKind.RELEASE, Reason.MALFORMED_ARCHIVE)}
FORBIDDEN = rejected(Reason.FORBIDDEN_CHANGE)


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path != name}


# By name: how it is made of the snapshot's files with the honest better train.py, and what is right for it.
ARCHIVES: dict[str, tuple[Callable[[dict[str, bytes]], bytes], Collection[Verdict]]] = {
    "symlink": (
        lambda f: tar(without(f, "train.py"), member("train.py", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        MALFORMED,
    ),
    "hardlink": (lambda f: tar(f, member("x", type=tarfile.LNKTYPE, linkname="train.py")), MALFORMED),
    "dot_dot": (lambda f: tar(f, more=[("../../wallets/verifier.json", b"[]")]), MALFORMED),
    "absolute": (lambda f: tar(f, more=[("/tmp/owned", b"x")]), MALFORMED),
    "case_collision": (lambda f: tar(f, more=[("TRAIN.PY", f["train.py"])]), MALFORMED),
    "twice": (lambda f: tar(f, more=[("train.py", b"print()\n")]), MALFORMED),
    "device": (lambda f: tar(f, member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), MALFORMED),
    "compressed": (lambda f: gzip.compress(tar(f)), MALFORMED),
    "trailing_data": (lambda f: tar(f) + b"x" * 512, MALFORMED),
    "no_archive": (lambda f: os.urandom(4096), MALFORMED),
    "large_member": (lambda f: tar(f, more=[("blob", bytes(17 << 20))]), rejected(Reason.SOURCE_TOO_LARGE)),
    "21_shadow_prepare": (
        lambda f: tar(f | {"prepare.py": f["prepare.py"].replace(b"def evaluate_bpb(", b"def evaluate_bpb_(")}),
        FORBIDDEN,
    ),
    "longer_budget": (
        lambda f: tar(f | {"protocol.json": f["protocol.json"].replace(b'SecondsBudget": ', b'SecondsBudget": 9')}),
        FORBIDDEN,
    ),
    "own_packages": (lambda f: tar(f | {"pyproject.toml": f["pyproject.toml"] + b"\n# mine\n"}), FORBIDDEN),
    "sitecustomize": (lambda f: tar(f | {"sitecustomize.py": b"import os\n"}), FORBIDDEN),
}


# --- proposals -----------------------------------------------------------------------------------


def _verdict(found: Mapping[str, Any]) -> Verdict:
    return VerdictKind(found["verdict"]), Reason(found["reason"])


@dataclass(slots=True)
class Court:
    """Submits proposals in one home and has them checked."""

    home: TinyHome
    session: SessionContext
    policy: Path
    pool: ThreadPoolExecutor
    proposals: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    checks: dict[str, Future[dict[str, Any]]] = field(default_factory=dict)
    incumbent: Run | None = None

    def accuse(self, name: str) -> Future[dict[str, Any]]:
        """The check of the proposal of that name, begun now if it was not."""
        if name not in self.checks:
            self.checks[name] = self.pool.submit(self.check, name)
        return self.checks[name]

    def verdict(self, name: str) -> dict[str, Any]:
        """The check's answer; of another check, as a verifier makes that comes back, where the machine was too busy."""
        found = self.accuse(name).result()
        for _ in range(2):
            if Reason(found["reason"]) not in BUSY or _verdict(found) in TRICKS[name].expected:
                break
            found = self.check(name)
        return found

    def arguments(self, name: str) -> list[str]:
        """Of the command that checks the proposal of that name."""
        where = ["--json", "--home", str(self.home.path), "--policy", str(self.policy)]
        return ["check", str(self.proposals[name]), *where]

    def check(self, name: str) -> dict[str, Any]:
        """`verifier check PROPOSAL --json` in a process of its own: its answer with its exit status."""
        done = subprocess.run(
            [sys.executable, "-m", "verifier.cli", *self.arguments(name)],
            cwd=ROOT,
            env={**os.environ, "CANARY": "alive"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.stdout, done.stderr
        return {**json.loads(done.stdout), "exit": done.returncode}

    def check_here(self, name: str) -> dict[str, Any]:
        """The same in this process, for what is decided without a run; not from a thread."""
        done = CliRunner().invoke(verifier, self.arguments(name))
        assert done.stdout, done.output
        return {**json.loads(done.stdout), "exit": done.exit_code}

    def written(self, source: str) -> str:
        """The script with this machine's paths in it."""
        return source.replace("@HOME@", str(self.home.path)).replace("@USER@", str(Path.home()))

    def one_run(self, source: str) -> tuple[list[CaseFinding], float | None, str]:
        """What a check finds in one run of the script, held to the incumbent's; its val_bpb; and its detail."""
        bench, tree = self.session.bench, {**self.home.files, "train.py": self.written(source).encode()}
        if self.incumbent is None:
            self.incumbent = bench.measure(Arm.INCUMBENT, self.home.files, salt=salt_of(0, 0))
        assert self.incumbent.measurement is not None
        reference = self.incumbent.measurement.reference
        run = bench.measure(Arm.CANDIDATE, tree, reference=reference, salt=salt_of(0, 0))
        both = [
            replay_run(
                each.arm.value,
                each.val_bpb,
                failure=each.failure,
                detail=each.detail,
                train_seconds=each.measurement.train_seconds if each.measurement else None,
            )
            for each in (self.incumbent, run)
        ]
        return run_findings(both, tiny.BUDGET, load(self.policy).budget), run.val_bpb, run.detail

    def propose_script(self, source: str) -> int:
        """What `miner submit FILE --claim --force` does."""
        file = self.session.folder / "candidate.py"
        file.write_text(self.written(source))
        return submit_file(self.session, file, self.home.claim, force=True)[0]

    def propose_archive(self, code: bytes) -> int:
        """A miner with a client of its own."""
        score = self.session.convention.to_score(Decimal(self.home.claim))
        log = b"---\nval_bpb: 1.0\n"
        offer = submit.Offer(-1, code, log, score, 1, self.session.reward_recipient)
        bench = self.session.bench
        return submit.submit(
            self.session.connection,
            self.session.wallet,
            self.session.project,
            offer,
            self.session.journal,
            machine=bench.machine,
            data_snapshot=bench.data_snapshot,
            say=lambda _: None,
        )

    def propose_ids(self, code: tuple[bytes, bytes], log: tuple[bytes, bytes]) -> int:
        """A proposal of these (SHA-256, Irys id), whatever lies there."""
        session = self.session
        submit.ensure_stake(
            session.connection.client, session.wallet, session.project, 1, session.journal, lambda _: None
        )
        done = session.connection.client.submit(
            session.wallet,
            session.project,
            code=code,
            log=log,
            claimed_score=session.project.current_best_aggregate_score + 1,
            stake=1,
            reward_recipient=session.reward_recipient,
        )
        return done.event(ProposalSubmitted).id

    def publish(self, role: Role, data: bytes, *, key: Keypair | None = None) -> tuple[bytes, bytes]:
        bench = self.session.bench
        tags = [*bench.machine.tags, ("Data-Snapshot", bench.data_snapshot)]
        return self.session.connection.publish(key or self.session.wallet, role, data, "application/x-tar", tags)

    def better(self) -> dict[str, bytes]:
        """The snapshot with the honest better train.py."""
        return {**self.home.files, "train.py": self.home.better.encode()}


def wrong_hash(court: Court) -> int:
    code, item = court.publish(Role.PROPOSAL_CODE, bundle.pack(court.better()))
    return court.propose_ids((sha256(code).digest(), item), court.publish(Role.BENCHMARK_LOG, b"log"))


def wrong_log_hash(court: Court) -> int:
    log, item = court.publish(Role.BENCHMARK_LOG, b"another log")
    return court.propose_ids(
        court.publish(Role.PROPOSAL_CODE, bundle.pack(court.better())), (sha256(log).digest(), item)
    )


def stolen_item(court: Court) -> int:
    code = court.publish(Role.PROPOSAL_CODE, bundle.pack(court.better()), key=Keypair())
    return court.propose_ids(code, court.publish(Role.BENCHMARK_LOG, b"log"))


def no_item(court: Court) -> int:
    nowhere = (os.urandom(32), os.urandom(32))
    return court.propose_ids(nowhere, court.publish(Role.BENCHMARK_LOG, b"log"))


def unknown_machine(court: Court) -> int:
    session, files = court.session, court.better()
    # Bytes of its own: a copy of what others of these submitted would be a later look at theirs, at a stricter level.
    code = court.publish(Role.PROPOSAL_CODE, bundle.pack({**files, "train.py": files["train.py"] + b"\n# unstated\n"}))
    log = session.connection.publish(session.wallet, Role.BENCHMARK_LOG, b"log", "text/plain")
    return court.propose_ids(code, log)


FORGED: dict[str, tuple[Callable[[Court], int], Collection[Verdict]]] = {
    # The signed item of that id holds other bytes than the chain says: proven, and nobody else's fault.
    "wrong_hash": (wrong_hash, rejected(Reason.HASH_MISMATCH)),
    "wrong_log_hash": (wrong_log_hash, rejected(Reason.HASH_MISMATCH)),
    # Nobody signed what this miner says it published; a gateway could have caused that too.
    "stolen_item": (stolen_item, {(VerdictKind.RELEASE, Reason.ARTIFACT_UNAVAILABLE)}),
    "no_item": (no_item, {(VerdictKind.RELEASE, Reason.ARTIFACT_UNAVAILABLE)}),
}


@dataclass(frozen=True, slots=True)
class Trick:
    """A proposal, what `verifier check` may say of it, and words that its explanation holds."""

    propose: Callable[[Court], int]
    expected: Collection[Verdict]
    says: str = ""
    runs: bool = True


def script(attack: Attack) -> Trick:
    return Trick(lambda court: court.propose_script(attack.source), attack.expected, attack.says)


def archive(make: Callable[[dict[str, bytes]], bytes], expected: Collection[Verdict]) -> Trick:
    return Trick(lambda court: court.propose_archive(make(court.better())), expected, runs=False)


def remember_validation(court: Court) -> int:
    measurer = court.session.bench.measurer
    assert measurer is not None
    return court.propose_script(cases.memorised(measurer.facts.rows[:16]).source)


LONG = cases.LONG if os.environ.get("ATTACKS") == "whole" else ()
TRICKS: dict[str, Trick] = {
    "00_honest": script(Attack("", cases.MODEL + "train(model, loader, TIME_BUDGET)\n" + cases.EVALUATE, APPROVED)),
    **{f"archive_{name}": archive(*made) for name, made in ARCHIVES.items()},
    **{name: Trick(*forged, runs=False) for name, forged in FORGED.items()},
    **{attack.name: replace(script(attack), runs=False) for attack in cases.EMBEDDED},
    **{attack.name: script(attack) for attack in (*cases.KNOWN, *cases.OWN, *LONG)},
    # What is tried against the host, in the verifier's own process and in each run again.
    "all_ways_out": script(cases.together("all_ways_out", *cases.OUT)),
    "memorised_validation": Trick(remember_validation, rejected(Reason.NOT_ON_HOLDOUT)),
    # Every other run is wild and none is better: a record of noise that learned from them would hide others' gains.
    # A proposal that changes nothing may also need more runs than are allowed to be told from one that does.
    "noise_poison": Trick(
        lambda court: court.propose_script(
            court.home.baseline.replace(
                "    val_bpb = evaluate_bpb(",
                "    import os\n    model.head.weight = model.head.weight * (1 + 40 * (os.urandom(1)[0] % 2))\n"
                "    val_bpb = evaluate_bpb(",
            )
        ),
        UNDECIDED,
    ),
}
# What is not stated does not differ: it is measured. The honest script after all others.
AFTERWARDS = "unknown_machine"
TRICKS[AFTERWARDS] = Trick(unknown_machine, APPROVED)


SCRIPTS = {attack.name: attack for attack in (*cases.KNOWN, *cases.OWN)}
# What only a whole verdict shows: the way from a run's finding and from a number to a rejection, and luck that varies.
WHOLE = {"11_peek_future_input", "absurd_loss", "crash_sometimes"}
MEASURED = () if os.environ.get("ATTACKS") == "whole" else tuple(name for name in SCRIPTS if name not in WHOLE)


def own(court: Court) -> dict[str, str]:
    """What no check may change: each file of the home by mode, size, time and content (sizes will do for packages),
    and the chain's accounts.
    """
    home, found = court.home.path, {}
    for folder in ("wallets", "data", "envs", "harness", "irys"):
        for path in sorted((home / folder).rglob("*")):
            stat = path.lstat()
            content = sha256(path.read_bytes()).hexdigest() if folder != "envs" and path.is_file() else ""
            found[str(path.relative_to(home))] = f"{stat.st_mode} {stat.st_size} {stat.st_mtime_ns} {content}"
    client = court.session.connection.client
    found |= {f"project {project.id}": repr(project) for project in client.projects()}
    return found | {f"proposal {each.id}": repr(each) for each in client.proposals(court.home.project)}


def processes() -> set[str]:
    return {path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()}


@pytest.fixture(scope="module")
def court(
    tiny_home: TinyHome, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Court]:
    """The selected proposals submitted, and checks of all of them queued, two at a time; under xdist when asked for."""
    # Proposals and noise of hostile scripts stay in a copy: other tests use the same home.
    tiny_home = tiny_home.copy(tmp_path_factory.mktemp("court") / "home")
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    who: dict[str, Any] = {"keypair": None, "reward_recipient": None, "stake": 1, "yes": True}
    with (
        local.connect(tiny_home.path) as opened,
        start.started(opened, tiny_home.project, quiet=True, trust_harness=False, **who) as session,
        ThreadPoolExecutor(2) as pool,
    ):
        court = Court(tiny_home, session, policy, pool)
        called = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
        names = [call.params["name"] for call in called if call and "name" in call.params]
        court.proposals = {name: TRICKS[name].propose(court) for name in (*names, AFTERWARDS)}
        court.before = own(court)
        try:
            if "PYTEST_XDIST_WORKER" not in os.environ:
                for name in names:
                    if TRICKS[name].runs:
                        court.accuse(name)
            yield court
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("script", MEASURED)
def test_the_run_that_decides_is_right(court: Court, script: str) -> None:
    attack = SCRIPTS[script]
    findings, val_bpb, detail = court.one_run(attack.source)
    if not findings:
        assert set(attack.expected) >= NO_GAIN, detail
        assert val_bpb is not None
        assert val_bpb > 4  # the honest number of a model that knows hardly anything
        return
    (found,) = findings
    assert (VerdictKind.REJECT, found.reason) in attack.expected, detail
    assert found.fault is Fault.RUN
    assert attack.says in found.detail


@pytest.mark.parametrize("name", [name for name in TRICKS if name not in {AFTERWARDS, *MEASURED}])
def test_the_verdict_is_right(court: Court, name: str) -> None:
    found = court.verdict(name) if TRICKS[name].runs else court.check_here(name)
    verdict = _verdict(found)
    assert TRICKS[name].runs or not found["runs"]
    shown = json.dumps({key: found[key] for key in ("explanation", "delta", "holdout_delta", "findings")}, indent=1)
    assert verdict in TRICKS[name].expected, f"{verdict}\n{shown}"
    assert found["exit"] == {VerdictKind.APPROVE: 0, VerdictKind.REJECT: 3, VerdictKind.RELEASE: 4}[verdict[0]]
    assert TRICKS[name].says in found["explanation"], shown
    if TRICKS[name].expected == NO_GAIN:  # the number itself is the honest one, of a model that knows hardly anything
        seen = [run["val_bpb"] for run in found["runs"] if run["arm"] == "candidate"]
        assert all(value is None or value > 4 for value in seen), found["runs"]


def test_nothing_is_left_behind(court: Court) -> None:
    """After all attacks honest work wins, the home is as it was, no process is left, and noise is judged as before."""
    found = court.verdict(AFTERWARDS)  # the last in the queue
    for check in court.checks.values():
        check.result()
    assert "daemonwashere" not in processes()
    assert _verdict(found) in APPROVED, found["explanation"]
    assert own(court) == court.before
    sigma = court.session.bench.noise().sigma
    assert sigma is not None
    assert sigma < 2 * court.home.sigma
    command = [sys.executable, "prepare.py", "--verify"]
    harness = next((court.home.path / "harness").iterdir())
    environment = {**os.environ, "AUTORESEARCH_CACHE": str(court.session.bench.cache)}
    assert subprocess.run(command, cwd=harness, env=environment, check=False, capture_output=True).returncode == 0


def test_every_attack_is_in_the_documents() -> None:
    listed = set(re.findall(r"`(\w+)`", (ROOT / "docs" / "attacks.md").read_text()))
    assert set(TRICKS) - {"00_honest"} <= listed
