"""Every instruction by hand: administration, reviews, expiry, rewards, and projects out of a repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair

from chain.commands.main import main
from chain.commands.review import due
from chain.connection import config
from chain.connection.opening import AUTHORITY, Connection
from chain.errors import ChainError, InvalidData, TransactionFailed
from chain.localnet.server import Server, serve
from chain.network.embedded import EmbeddedNetwork
from chain.program.accounts import EXPIRY_WINDOW_SECONDS, Proposal, ProposalStatus
from chain.program.addresses import ZERO_KEY
from chain.program.instructions import Expire, Initialize
from chain.projects import packing
from chain.projects.artifacts import fetch_project
from chain.wallet import wallet
from common import baseline
from common import git as common_git
from tests import local, official
from tests.chain.commands.test_cli import ask, chain, refused
from trainer.project import bundle, task


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return local.home_with_project(tmp_path / "home")


@pytest.fixture
def embedded(home: Path) -> Iterator[EmbeddedNetwork]:
    embedded = EmbeddedNetwork(home)
    yield embedded
    embedded.close()


@pytest.fixture
def server(embedded: EmbeddedNetwork) -> Iterator[Server]:
    with serve(embedded, port=0).start() as server:
        yield server


def key_of(home: Path, name: str) -> str:
    return str(wallet.load(wallet.path_of(home, name)).pubkey())


def typing(home: Path, text: str, *arguments: object) -> Result:
    """The command with a user who types."""
    return CliRunner().invoke(main, [*map(str, arguments), "--home", str(home)], input=text)


# --- administration ---


def test_a_program_is_initialized_once(tmp_path: Path) -> None:
    """Over JSON-RPC: the embedded network initializes itself."""
    embedded = EmbeddedNetwork(tmp_path / "ledger")
    with serve(embedded, port=0).start() as server:
        over = ["--network", server.url]
        done = ask(tmp_path / "home", "admin", "initialize", *over)
        assert done["authority"] == key_of(tmp_path / "home", AUTHORITY)
        again = chain(tmp_path / "home", "admin", "initialize", *over)
        refused(again)
        assert f"initialized already; its authority is {done['authority']}" in again.stderr
        with Connection(config.load({}, asked=server.url), tmp_path / "home") as connection:
            authority = connection.wallet(None, AUTHORITY)
            with pytest.raises(TransactionFailed, match=r"The account \w+ exists already\."):
                connection.client.call(Initialize(), authority)
    embedded.close()


def test_the_authority_is_handed_on_by_typing_its_address(home: Path) -> None:
    new = str(wallet.new(home, "next").pubkey())
    for text in ("", "yes\n", new[:-1] + "\n", "next\n"):
        result = typing(home, text, "admin", "transfer", "next")
        assert result.exit_code == 1
        assert "Cancelled. Nothing was sent." in result.stderr
        assert new in result.stderr
    refused(chain(home, "admin", "transfer", "next", "--confirm", "next"), "Cancelled", f"--confirm {new}")
    refused(chain(home, "admin", "transfer", new, "--confirm", new, "--keypair", "miner"), "not the authority")
    result = typing(home, f"{new}\n", "admin", "transfer", "next", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["authority"] == new
    refused(chain(home, "verifier", "add", Keypair().pubkey()), "not the authority")
    ask(home, "wallet", "airdrop", "next", 1)
    assert ask(home, "verifier", "add", Keypair().pubkey(), "--keypair", "next")["registered"]
    zero = str(ZERO_KEY)
    refused(chain(home, "admin", "transfer", zero, "--confirm", zero, "--keypair", "next"), "zero address")


@pytest.mark.parametrize("over_http", [False, True])
def test_the_authority_is_renounced_by_typing_the_word(home: Path, server: Server, over_http: bool) -> None:
    over = ["--network", server.url] if over_http else []
    for word in ("yes", "Renounce", ""):
        refused(chain(home, "admin", "renounce", "--confirm", word, *over), "Cancelled", "--confirm renounce")
    assert "Cancelled" in typing(home, "no\n", "admin", "renounce", *over).stderr
    assert ask(home, "verifier", "add", Keypair().pubkey(), *over)["registered"]
    done = ask(home, "admin", "renounce", "--confirm", "renounce", *over)
    assert (done["previous"], done["authority"]) == (key_of(home, AUTHORITY), None)
    refused(chain(home, "verifier", "add", Keypair().pubkey(), *over), "not the authority")
    refused(chain(home, "admin", "renounce", "--confirm", "renounce", *over), "not the authority")


# --- reviews ---


@pytest.fixture
def proposals(home: Path) -> list[Proposal]:
    with local.connect(home) as connection:
        return [local.propose(connection, metric=f"2.{400 - number}") for number in range(3)]


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text('{"metric_value": 2.4}')
    return path


def test_a_review_by_hand(home: Path, proposals: list[Proposal], metrics: Path) -> None:
    given = ["--metrics", metrics]
    refused(chain(home, "proposal", "approve", 0, *given, "--verified", "2.4"), "must be claimed first")
    claimed = ask(home, "proposal", "claim", 0)
    assert (claimed["proposal"], claimed["status"]) == (0, "in_review")
    assert claimed["review_lock_until"] > proposals[0].submitted_at
    assert ask(home, "proposal", "release", 0)["status"] == "pending"
    refused(chain(home, "proposal", "release", 0), "must be claimed first")
    assert "is yours to review until 20" in chain(home, "proposal", "claim", 0).stdout
    refused(chain(home, "proposal", "claim", 0, "--keypair", "miner"), "not a registered verifier")
    refused(chain(home, "proposal", "reject", 0, *given, "--keypair", "miner"), "is in review by")
    refused(chain(home, "proposal", "approve", 0, *given), "--verified", code=2)
    refused(chain(home, "proposal", "approve", 0, *given, "--verified", "2.4", "--score", 1), code=2)
    refused(chain(home, "proposal", "approve", 0, *given, "--verified", "x"), "not a number", code=2)
    uploaded = sorted((home / "irys").rglob("*"))
    refused(chain(home, "proposal", "approve", 0, *given, "--verified", "2.5"), "does not improve")
    assert sorted((home / "irys").rglob("*")) == uploaded
    done = ask(home, "proposal", "approve", 0, *given, "--verified", "2.4")
    assert (done["status"], done["score"], done["reward"]) == ("approved", 2_600_000, 1)
    assert done["metrics_hash"] == sha256(metrics.read_bytes()).hexdigest()
    shown = ask(home, "proposal", "show", 0)
    assert (shown["status"], shown["metrics_hash"]) == ("approved", done["metrics_hash"])
    with local.connect(home) as connection:  # it can be had by its id
        found = connection.client.proposal(0)
        assert connection.fetch(found.metrics_irys_id, found.metrics_hash, None, "metrics") == metrics.read_bytes()
    ask(home, "proposal", "claim", 1)
    ask(home, "proposal", "approve", 1, *given, "--score", 2_601_000)


def test_a_rejection_and_its_reward(home: Path, proposals: list[Proposal], metrics: Path) -> None:
    ask(home, "proposal", "claim", 0)
    done = ask(home, "proposal", "reject", 0, "--metrics", metrics)
    assert (done["status"], done["burned"], done["claimable"]) == ("rejected", 2, 2)
    assert ask(home, "token", "balance", "--keypair", "verifier")["claimable"] == 2
    claimed = ask(home, "token", "claim-reward", "--keypair", "verifier")
    assert (claimed["tokens"], claimed["address"]) == (2, key_of(home, "verifier"))
    held = ask(home, "token", "balance", "--keypair", "verifier")
    assert (held["tokens"], held["claimable"]) == (2, 0)
    assert chain(home, "token", "claim-reward", "--keypair", "verifier").exit_code == 1
    empty = metrics.with_name("empty.json")
    empty.write_bytes(b"")
    refused(chain(home, "proposal", "reject", 1, "--metrics", empty), "is empty")


# --- expiry ---


def entry(base: Proposal, number: int, submitted: int, status: ProposalStatus) -> Proposal:
    return replace(base, id=number, submitted_at=submitted, status=status)


def test_what_is_due(proposals: list[Proposal]) -> None:
    base, now = proposals[0], 10 * EXPIRY_WINDOW_SECONDS
    edge = now - EXPIRY_WINDOW_SECONDS
    pending, reviewed = ProposalStatus.PENDING, ProposalStatus.IN_REVIEW
    given = [
        entry(base, 0, edge + 1, pending),
        entry(base, 1, edge, pending),
        entry(base, 2, edge - 5, reviewed),  # its lock does not put it off
        *[entry(base, 3 + n, 0, s) for n, s in enumerate(ProposalStatus) if s not in (pending, reviewed)],
        entry(base, 9, edge, reviewed),
    ]
    assert [found.id for found in due(given, now)] == [2, 1, 9]


def test_one_expires(home: Path, embedded: EmbeddedNetwork, proposals: list[Proposal]) -> None:
    refused(chain(home, "proposal", "expire", 0), "can expire from 20")
    refused(chain(home, "proposal", "expire"), "--all-due", code=2)
    refused(chain(home, "proposal", "expire", 0, "--all-due"), code=2)
    assert ask(home, "proposal", "expire", "--all-due") == []
    assert "No proposal is due" in chain(home, "proposal", "expire", "--all-due").stdout
    embedded.warp(EXPIRY_WINDOW_SECONDS)
    done = ask(home, "proposal", "expire", 0)
    assert (done["status"], done["burned"], done["claimable"]) == ("expired", 2, 2)
    assert ask(home, "token", "balance")["claimable"] == 2


@pytest.mark.parametrize("over_http", [False, True])
def test_all_that_is_due_expires(
    home: Path, embedded: EmbeddedNetwork, server: Server, proposals: list[Proposal], over_http: bool
) -> None:
    over = ["--network", server.url] if over_http else []
    ask(home, "proposal", "claim", 1)
    embedded.warp(EXPIRY_WINDOW_SECONDS)
    with local.connect(home) as connection:
        late = local.propose(connection)
    rows = ask(home, "proposal", "expire", "--all-due", "--limit", 2, *over)
    assert [(row["proposal"], row["status"]) for row in rows] == [(0, "expired"), (1, "expired")]
    assert ask(home, "proposal", "expire", "--all-due", "--project", 0, *over)[0]["proposal"] == 2
    assert ask(home, "proposal", "expire", "--all-due", *over) == []
    statuses = [found["status"] for found in ask(home, "proposal", "list")]
    assert statuses == ["expired", "expired", "expired", "pending"]
    assert late.id == 3
    assert ask(home, "token", "balance")["claimable"] == 6


def test_one_that_fails_does_not_stop_the_rest(
    home: Path, embedded: EmbeddedNetwork, proposals: list[Proposal], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chain.money.client import Client

    embedded.warp(EXPIRY_WINDOW_SECONDS)
    call = Client.call

    def rush(self: Client, args: object, cranker: Keypair, **more: Any) -> Any:
        if args == Expire(1):  # somebody is faster
            call(self, args, wallet.load(wallet.path_of(home, "verifier")), **more)
        return call(self, args, cranker, **more)

    monkeypatch.setattr(Client, "call", rush)
    result = chain(home, "proposal", "expire", "--all-due", "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert [(row["proposal"], row["status"]) for row in rows] == [(0, "expired"), (1, "failed"), (2, "expired")]
    assert "is expired already" in rows[1]["problem"]
    assert {found["status"] for found in ask(home, "proposal", "list")} == {"expired"}


def test_what_would_fail_all_of_them_stops(home: Path, embedded: EmbeddedNetwork, proposals: list[Proposal]) -> None:
    embedded.warp(EXPIRY_WINDOW_SECONDS)
    result = chain(home, "proposal", "expire", "--all-due", "--max-spend", "0")
    assert result.exit_code == 1
    assert "cap of 0 SOL" in result.stdout
    assert "2 more are due" in result.stdout


# --- a project out of a repository ---


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in local.SMOKE.files.items():
        (folder / name).write_bytes(content)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one")
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def create(repository: Path, *more: object) -> list[object]:
    return ["project", "create", "--repository", repository, "--name", "Mine", "--symbol", "ME", *more]


_MADE = (
    "--data-snapshot",
    local.DATA_SNAPSHOT,
    "--data-argument",
    "--text",
    "--data-argument",
    "stdlib",
    "--baseline",
    "2.534",
)


@pytest.mark.parametrize("over_http", [False, True])
def test_a_project_from_a_repository(home: Path, repository: Path, server: Server, over_http: bool) -> None:
    from chain.irys.node import serve as serve_irys

    with serve_irys(home / "irys") as irys:
        over = ["--network", server.url, "--irys", irys.url] if over_http else []
        made = ask(home, *create(repository, *_MADE, *over))
    assert made["project"] == 1
    with local.connect(home) as connection:
        project = connection.client.project(1)
        artifacts = fetch_project(connection, project)
    hashes = {name: sha256(getattr(artifacts, name)).hexdigest() for name in made["sha256"]}
    assert hashes == made["sha256"]
    assert hashes["snapshot"] == project.repo_snapshot_hash.hex()
    # what a miner reads of it
    parsed = task.read(artifacts)
    assert parsed.files == local.SMOKE.files
    assert (parsed.baseline, project.baseline_aggregate_score) == (Decimal("2.534"), 2_534_000)
    assert parsed.benchmark == task.Benchmark("armlx-smoke-1", ("--text", "stdlib"), local.DATA_SNAPSHOT)
    shown = ask(home, "project", "show", 1)
    assert (shown["baseline"], shown["convention"]) == ("2.534000", "reflected")


def test_what_cannot_be_a_project_is_refused_before_anything_is_uploaded(home: Path, repository: Path) -> None:
    metrics = repository.parent / "metrics.json"
    metrics.write_bytes(local.artifacts().baseline_metrics)
    uploaded = sorted((home / "irys").rglob("*"))
    short = ("--data-snapshot", local.DATA_SNAPSHOT)
    for more, words in [
        ((*short, "--metrics", metrics, "--baseline", "2.4"), "--baseline is 2.4"),
        ((*short, "--baseline", "2.12345678"), "six decimals"),
        ((*short, "--baseline", "0"), "matches no known convention"),
        ((*short, "--baseline", "inf"), "score"),
        (("--data-snapshot", "abc", "--baseline", "2"), "64 hex digits"),
        ((*_MADE, "--revision", "nowhere"), "git rev-parse failed in"),
        ((*_MADE, "--revision", "--output=x"), "not a git revision"),
        ((*_MADE, "--protocol", metrics), "does not define the measurement"),
    ]:
        refused(chain(home, *create(repository, *more)), words)
    (repository / "train.py").write_text("changed")
    refused(chain(home, *create(repository, *_MADE)), "uncommitted changes", "train.py")
    git(repository, "checkout", "train.py")
    shutil.rmtree(repository / ".git")
    refused(chain(home, *create(repository, *_MADE)), "git status failed in")
    assert sorted((home / "irys").rglob("*")) == uploaded
    for more in ((), short, ("--baseline", "2"), (*_MADE, "--snapshot", metrics), (*_MADE, "--benchmark", metrics)):
        refused(chain(home, *create(repository, *more)), code=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda repository: edit(repository, "protocolVersion", None), "protocolVersion must be"),
        (lambda repository: edit(repository, "mutableSurface", {"allowedGlobs": ["model.py"]}), "change train.py"),
        (lambda repository: (repository / "uv.lock").unlink(), "The snapshot has no uv.lock."),
        (lambda repository: (repository / "prepare.py").unlink(), "The snapshot has no prepare.py."),
        (lambda repository: put(repository, ".openresearch/x"), "contains a .openresearch folder"),
        (lambda repository: (repository / "link").symlink_to("train.py"), "a symbolic link, 'link'"),
        (lambda repository: put(repository, "Train.py"), "the same as another"),
    ],
)
def test_what_no_miner_could_read_is_refused_before_anything_is_uploaded(
    home: Path, repository: Path, change: Callable[[Path], object], words: str
) -> None:
    uploaded = sorted((home / "irys").rglob("*"))
    change(repository)
    commit(repository)
    refused(chain(home, *create(repository, *_MADE)), words)
    assert sorted((home / "irys").rglob("*")) == uploaded


def edit(repository: Path, field: str, value: object) -> None:
    """One field of the protocol set, or taken away."""
    document = json.loads(local.PROTOCOL)
    document[field] = value
    (repository / "protocol.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def put(repository: Path, name: str) -> None:
    path = repository / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x\n")


def commit(repository: Path) -> None:
    git(repository, "add", "-A", "--force")
    git(repository, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "more")


def test_the_snapshot_is_the_named_repositorys_commit_byte_for_byte(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dotfiles shell's GIT_DIR, Git for Windows' line endings and attributes for archives change nothing of it."""
    (repository / ".gitattributes").write_text("uv.lock export-ignore\nstamp.txt export-subst\n*.md eol=crlf\n")
    (repository / "stamp.txt").write_text("$Format:%H$\n")
    (repository / "notes.md").write_bytes(b"one\ntwo\n")
    (repository / ("deep/" * 30 + "long.txt")).parent.mkdir(parents=True)
    (repository / ("deep/" * 30 + "long.txt")).write_bytes(b"a path that needs a header of its own\n")
    commit(repository)
    expected = {path: (repository / path).read_bytes() for path in (".gitattributes", "stamp.txt")}
    expected |= {**local.SMOKE.files, "notes.md": b"one\ntwo\n"}
    expected |= {"deep/" * 30 + "long.txt": b"a path that needs a header of its own\n"}

    private = tmp_path / "private"
    private.mkdir()
    (private / "private.conf").write_text("token=EXAMPLE\n")
    git(private, "init", "-q")
    commit(private)
    settings = tmp_path / "home"
    settings.mkdir()
    (settings / ".gitconfig").write_text("[core]\n\tautocrlf = true\n")
    monkeypatch.setenv("HOME", str(settings))
    for name, value in {
        "GIT_DIR": private / ".git",
        "GIT_WORK_TREE": private,
        "GIT_INDEX_FILE": tmp_path / "i",
    }.items():
        monkeypatch.setenv(name, str(value))
    tar = packing.snapshot(repository)
    assert bundle.read_archive(tar).files == expected
    assert sorted(packing.files(tar)) == sorted((path, len(data)) for path, data in expected.items())
    assert packing.snapshot(repository) == tar


def test_a_repository_of_another_user_is_named_as_such(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git says itself does not help: its advice is a setting."""
    own = common_git.own
    monkeypatch.setattr(common_git, "own", lambda: own() | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1", "HOME": "/"})
    with pytest.raises(ChainError, match="git does not work in another user's folder") as refusal:
        packing.snapshot(repository)
    assert f"chown -R $USER {repository}" in refusal.value.cure


def test_what_becomes_public_is_listed_and_asked_for(
    home: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = chain(home, *create(repository, *_MADE))
    assert result.exit_code == 0  # a local network: nothing leaves this machine
    assert f"public for ever, beside protocol, benchmark and metrics ({len(local.SMOKE.files)} files):" in result.stderr
    for name, data in local.SMOKE.files.items():
        assert f"{len(data):,}  {name}\n" in result.stderr
    uploaded = sorted((home / "irys").rglob("*"))
    monkeypatch.setattr(EmbeddedNetwork, "is_local", False)
    result = chain(home, *create(repository, *_MADE))
    assert (result.exit_code, sorted((home / "irys").rglob("*"))) == (1, uploaded)
    assert "Cancelled. Nothing was uploaded. Agree when asked, or add --yes." in result.stderr


def test_the_official_clients_files_are_a_project(home: Path, tmp_path: Path) -> None:
    """A tar as the benchmark and a log as the metrics, as they are: what its documentation names."""
    given = official.artifacts()
    names = {"snapshot": "s.tar", "protocol": "p.json", "benchmark": "benchmark.tar", "metrics": "baseline_run.log"}
    for option, data in zip(
        names, (given.snapshot, given.protocol, given.benchmark, given.baseline_metrics), strict=True
    ):
        (tmp_path / names[option]).write_bytes(data)
    options = [part for option, name in names.items() for part in (f"--{option}", tmp_path / name)]
    result = chain(home, "project", "create", *options, "--name", "Mine", "--symbol", "ME")
    assert result.exit_code == 0, result.output
    assert "The benchmark artifact is a tar that" in result.stderr
    shown = ask(home, "project", "show", 1)
    assert (shown["baseline"], shown["convention"]) == ("2.500000", "reflected")


@given(st.binary(max_size=100) | st.lists(st.none() | st.text(max_size=9)).map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_protocol_or_a_refusal(data: bytes) -> None:
    with pytest.raises(InvalidData):
        packing.measured(data)


@given(st.decimals("0.000001", "99999", places=6))
def test_made_metrics_hold_the_exact_baseline(value: Decimal) -> None:
    what = packing.measured(local.PROTOCOL)
    made = packing.metrics(what, value, local.DATA_SNAPSHOT)
    assert baseline.read(made, what.metric).metric == value


def test_a_snapshot_has_a_size(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle.read_archive(packing.snapshot(repository)).files == local.SMOKE.files
    monkeypatch.setattr(packing, "MAX_SNAPSHOT", 1_000)
    with pytest.raises(ChainError, match="the limit of 1,000 bytes"):
        packing.snapshot(repository)
