"""The whole path as a user walks it: the installed commands, in processes of their own, on the tiny project.

Mine, submit, check, settle, audit and look at the result, embedded and over HTTP; interrupted and killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import local
from tests.verifier.test_schema import body_of, problems
from trainer.project import hyperparameters

if TYPE_CHECKING:
    from tests.attacks.tiny import TinyHome

BIN = Path(sys.executable).parent
SECONDS = 400  # for any one command, on a busy machine; each takes a fraction of it
OK, REJECTED, RELEASED, INTERRUPTED = 0, 3, 4, 130


@pytest.fixture
def home(tiny_home: TinyHome, tmp_path: Path) -> Path:
    return tiny_home.copy(tmp_path / "home").path


def environment() -> dict[str, str]:
    ours = ("ARMLX_HOME", "ARMLX_NETWORK", "ARMLX_IRYS", "AUTORESEARCH_CACHE")
    return {key: value for key, value in os.environ.items() if key not in ours}


def start(home: Path, *arguments: object, errors: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A command under way, in a process group of its own, as a shell starts it; `errors` is where these go."""
    command = [str(BIN / str(arguments[0])), *map(str, arguments[1:]), "--home", str(home)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def run(home: Path, *arguments: object, code: int | tuple[int, ...] = OK) -> str:
    """A command that must end with this status, or one of these; its standard output."""
    process = start(home, *arguments)
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode in (code if isinstance(code, tuple) else (code,)), (
        arguments,
        process.returncode,
        out[-2000:],
        err[-3000:],
    )
    assert "Traceback" not in err
    return out


def answer(home: Path, *arguments: object, code: int = OK) -> Any:
    """The JSON document of a command, of `miner run` its last event; standard output holds nothing else."""
    out = run(home, *arguments, "--json", code=code)
    return [json.loads(line) for line in out.splitlines()][-1] if arguments[:2] == ("miner", "run") else json.loads(out)


def script(home: Path, name: str, source: str) -> Path:
    path = home.parent / name
    path.write_text(source)
    return path


def events(home: Path) -> list[dict[str, Any]]:
    """The whole lines of the mining session's ledger, where there is one."""
    found = list((home / "work").glob("*/session.jsonl"))
    if not found:
        return []
    (path,) = found
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait for something to have happened while a command runs."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stop(process: subprocess.Popen[str], how: signal.Signals) -> tuple[int, str]:
    """Send a signal to the whole group, as a terminal does; exit status and standard error."""
    os.killpg(process.pid, how)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def status(home: Path, proposal: int) -> str:
    return str(answer(home, "chain", "proposal", "show", proposal)["status"])


def test_mine_submit_check_settle_audit_show(tiny_home: TinyHome, home: Path) -> None:
    """Embedded, with no option but the home."""
    mined = answer(home, "miner", "run", "--max-trials", 2, "--dry-run")
    assert (mined["project"], mined["network"], mined["proposals"]) == (0, "embedded", [])
    assert 1 <= mined["trials"] <= 2
    folder = Path(mined["folder"])
    lines = (folder / "results.tsv").read_text().splitlines()
    assert lines[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert len(lines) == 2 + mined["trials"]
    assert len((folder / "trials.jsonl").read_text().splitlines()) == 1 + mined["trials"]
    assert answer(home, "chain", "proposal", "list") == []

    better = script(home, "better.py", tiny_home.better)
    submitted = answer(home, "miner", "submit", better, "--claim", tiny_home.claim)
    assert submitted == {"proposal": 0, "claimed": tiny_home.claim}
    assert status(home, 0) == "pending"

    found = answer(home, "verifier", "check", 0, "--settle", "--yes")
    assert (found["verdict"], found["reason"], found["settlement"]["status"]) == ("approve", "improved", "approved")
    assert found["delta"] > 0
    assert found["holdout_delta"] > 0
    assert {run["failure"] for run in found["runs"]} == {""}
    _holds_what_it_should(Path(found["attestation"]).read_bytes())

    shown = answer(home, "chain", "project", "show", 0)
    assert float(shown["baseline"]) == pytest.approx(tiny_home.metric, abs=1e-6)
    assert float(shown["best"]) == pytest.approx(tiny_home.metric - found["delta"], abs=2e-6)
    assert shown["best"] == found["metric"]
    assert float(shown["raw_gain"]) == pytest.approx(found["delta"], abs=2e-6)
    assert float(shown["delta_percent"]) > 0
    minted = shown["miner_pool_minted"]
    assert 0 < minted <= shown["miner_pool_cap"]
    assert shown["supply"] == 1 + minted  # the stake, bought, and the reward, minted
    assert answer(home, "chain", "token", "balance")["tokens"] == 1 + minted
    price = shown["project"]["base_price"] + shown["project"]["slope"] * shown["supply"]
    assert shown["next_price_lamports"] == price
    assert [(p["id"], p["status"]) for p in shown["proposals"]] == [(0, "approved")]
    text = run(home, "chain", "project", "show", 0)
    assert "track record (1 approved)" in text

    audited = answer(home, "verifier", "audit", found["attestation"])
    assert audited["passed"]
    assert [point for point in audited["points"] if point["holds"] is False] == []
    # once more: it is settled, and nothing is checked or sent again
    again = answer(home, "verifier", "check", 0, "--settle", "--yes")
    assert again["status"] == "approved"


def _holds_what_it_should(sealed: bytes) -> None:
    """A real attestation: it fits the schema, and was measured with trust, on holdout text and with probes."""
    statement = body_of(sealed)
    assert problems(statement) == []
    predicate = statement["predicate"]
    assert (predicate["method"], predicate["verdict"]["kind"]) == ("trusted", "approve")
    assert predicate["machine"]["class"]
    assert predicate["data"]["holdout"]["source"].startswith("held out:")
    assert all(run["probes"]["count"] for run in predicate["runs"] if run["arm"] == "candidate")
    assert [entry["name"] for entry in statement["subject"]] == ["code.tar", "train.py"]


@contextmanager
def localnet(home: Path, *options: str) -> Iterator[list[str]]:
    """The local network served on free ports; the options with which a client uses it."""
    process = start(home, "chain", "localnet", "--port", 0, "--irys-port", 0, *options)
    assert process.stdout is not None
    try:
        told = dict(process.stdout.readline().split(None, 1) for _ in range(4))
        yield ["--network", told["rpc"].strip(), "--irys", told["irys"].strip()]
    finally:
        code, err = stop(process, signal.SIGINT)
    assert code == OK
    assert "stopped" in err


def test_over_http_a_false_claim_is_rejected_and_slashed(tiny_home: TinyHome, home: Path) -> None:
    """A client with a home of its own, all of whose chain and Irys is behind the two URLs."""
    worse = hyperparameters.replace(tiny_home.baseline, {"EMBED_LR": 1e-05, "HEAD_LR": 1e-05, "MATRIX_LR": 1e-05})
    path = script(home, "worse.py", worse)
    policy = script(home, "policy.toml", "[verdict]\ncalm = false\n")  # other tests may load this machine
    with localnet(home) as net:
        before = answer(home, "chain", "project", "show", 0, *net)
        submitted = answer(home, "miner", "submit", path, "--claim", tiny_home.claim, *net)
        assert submitted["proposal"] == 0
        check = ("verifier", "check", 0, "--settle", "--yes", "--policy", policy, "--json", *net)
        for _ in range(3):  # other tests may make runs so uneven that a check is left in doubt, which releases
            found = json.loads(run(home, *check, code=(REJECTED, RELEASED)))
            if found["verdict"] != "release":
                break
        assert (found["verdict"], found["reason"]) == ("reject", "no_improvement")
        assert found["settlement"]["status"] == "rejected"
        after = answer(home, "chain", "project", "show", 0, *net)
        assert answer(home, "verifier", "audit", found["attestation"], "--policy", policy, *net)["passed"]
    assert after["best"] == before["best"]
    assert after["miner_pool_minted"] == 0
    assert [p["status"] for p in after["proposals"]] == ["rejected"]
    assert answer(home, "chain", "token", "balance")["tokens"] == 0  # the stake is gone
    # the embedded network is the same ledger, and the evidence is on the same Irys
    assert answer(home, "chain", "project", "show", 0) == after


def finished_runs(home: Path) -> Counter[tuple[int, str]]:
    return Counter((event["number"], event["log"]) for event in events(home) if event["event"] == "run")


def test_interrupted_and_killed_it_goes_on_where_it_was(home: Path) -> None:
    command = ("miner", "run", "--max-trials", 1, "--dry-run")
    for count, how in ((1, signal.SIGINT), (2, signal.SIGTERM)):
        process = start(home, *command)
        until(process, lambda: len(finished_runs(home)) >= count)  # noqa: B023
        code, err = stop(process, how)
        assert code == INTERRUPTED
        assert "Run the same command to resume." in err
        assert "Traceback" not in err
    first = events(home)

    process = start(home, *command)
    until(process, lambda: any(event.get("number") == 1 for event in events(home)))
    assert stop(process, signal.SIGKILL)[0] == -signal.SIGKILL
    second = events(home)
    assert second[: len(first)] == first

    summary = answer(home, *command)
    assert summary["trials"] == 1
    third = events(home)
    assert third[: len(second)] == second
    # three runs of the baseline in all, and no trial twice: what was finished was not made again
    runs = finished_runs(home)
    assert set(runs.values()) == {1}
    assert sum(number == 0 for number, _ in runs) == 3
    kinds = Counter((event["event"], event["number"]) for event in third if event["event"] in ("trial", "decision"))
    assert kinds == {("trial", 0): 1, ("decision", 0): 1, ("trial", 1): 1, ("decision", 1): 1}
    results = (Path(summary["folder"]) / "results.tsv").read_text().splitlines()
    assert len(results) == 3

    # and from another machine it does not go on, and is none the worse for the attempt
    embedded = Path(summary["folder"]) / "session.jsonl"
    here = next(event["measured"] for event in third if event["event"] == "begin")
    embedded.write_text(embedded.read_text().replace(here, "apple-m9-40c, trusted"))
    refused = start(home, *command)
    _, err = refused.communicate(timeout=SECONDS)
    assert refused.returncode not in (OK, INTERRUPTED)
    assert "apple-m9-40c" in err
    assert "not comparable" in " ".join(err.split())
    embedded.write_text(embedded.read_text().replace("apple-m9-40c, trusted", here))
    assert answer(home, *command)["trials"] >= 1


@pytest.mark.parametrize("moment", ["intent", "sent"])
def test_killed_while_submitting_it_is_there_once(tiny_home: TinyHome, home: Path, moment: str) -> None:
    """Whether it landed or not, the next command finds out, and chain and ledger agree."""
    better = script(home, "better.py", tiny_home.better)
    process = start(home, "miner", "submit", better, "--claim", tiny_home.claim)
    until(process, lambda: any(event["event"] == moment for event in events(home)))
    stop(process, signal.SIGKILL)
    landed = len(answer(home, "chain", "proposal", "list"))
    assert landed in (0, 1)
    # the next submission, of another script, first settles what became of this one
    other = script(home, "other.py", tiny_home.baseline + "\n# other\n")
    submitted = answer(home, "miner", "submit", other, "--claim", tiny_home.claim)
    assert submitted["proposal"] == landed
    assert len(answer(home, "chain", "proposal", "list")) == landed + 1
    ends = [event for event in events(home) if event["event"] in ("submitted", "abandoned")]
    assert [event.get("proposal") for event in ends] == [0 if landed else None, landed]


def test_the_unattended_verifier_settles_all_that_is_pending(tiny_home: TinyHome, home: Path) -> None:
    """One that crashes in every run and one over the source caps; neither stops the other."""
    crash = script(home, "crash.py", "raise RuntimeError('broken')\n")
    large = script(home, "large.py", tiny_home.better + f"\nWEIGHTS = '{'0' * 10_000}'\n")
    before = answer(home, "verifier", "check", "--candidate", crash, code=REJECTED)  # as anybody may, with no proposal
    assert (before["verdict"], before["reason"]) == ("reject", "crash")
    assert problems(body_of(Path(before["attestation"]).read_bytes())) == []
    for number, path in enumerate((crash, large)):
        assert answer(home, "miner", "submit", path, "--claim", tiny_home.claim, "--force")["proposal"] == number
    results = answer(home, "verifier", "run", "--once", "--yes")
    assert [(result["proposal"], result["status"]) for result in results] == [(0, "rejected"), (1, "rejected")]
    with local.connect(home) as connection:
        proposals = connection.client.proposals(0)
        assert all(any(proposal.metrics_hash) for proposal in proposals)
    reasons = []
    for number in range(2):
        audited = answer(home, "verifier", "audit", home / "verify" / f"embedded-{number}" / "attestation.json")
        assert audited["passed"]
        reasons.append(audited["verdict"]["reason"])
    assert reasons == ["crash", "source_too_large"]
    assert answer(home, "verifier", "run", "--once", "--yes") == []
