"""The work tree: real git, and nothing of its owner's configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from common import git as common_git
from common.errors import Refused
from miner.journal import worktree
from miner.journal.worktree import Workspace
from tests.support import require
from trainer.errors import EnvironmentNotReady
from trainer.project import bundle

SNAPSHOT: Mapping[str, bytes] = {
    "train.py": b"LR = 0.1\nprint('caf\xc3\xa9')\n",
    "prepare.py": b"# harness\r\n",
    "docs/a b.txt": b"no newline at the end",
    "empty": b"",
}


@pytest.fixture(autouse=True)
def _git() -> None:
    require(shutil.which("git") is not None, "git (apt-get install git)")


@pytest.fixture
def tree(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "tree", "20260101-000000", SNAPSHOT)


def git(path: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(path), *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_it_begins_with_the_snapshot(tree: Workspace) -> None:
    assert git(tree.path, "symbolic-ref", "HEAD") == "refs/heads/autoresearch/20260101-000000"
    assert git(tree.path, "status", "--porcelain") == ""
    assert git(tree.path, "rev-list", "--count", "HEAD") == "1"
    assert tree.head() == git(tree.path, "rev-parse", "HEAD")
    assert tree.read(tree.head(), "train.py") == SNAPSHOT["train.py"].decode()
    assert bundle.read_tree(tree.path) == SNAPSHOT


def test_a_candidate_is_a_commit_that_moves_nothing(tree: Workspace) -> None:
    base, files = tree.head(), bundle.read_tree(tree.path)
    commit = tree.commit(3, "LR = 0.2\n", "LR 0.1 -> 0.2\nsecond line; $(touch hacked) --amend")
    assert tree.head() == base
    assert git(tree.path, "status", "--porcelain") == ""
    assert bundle.read_tree(tree.path) == files
    assert git(tree.path, "rev-parse", f"{commit}^") == base
    assert git(tree.path, "rev-parse", "refs/experiments/0003") == commit
    assert (
        git(tree.path, "log", "-1", "--format=%s", commit)
        == "experiment: LR 0.1 -> 0.2 second line; $(touch hacked) --amend"
    )
    assert git(tree.path, "diff", "--name-only", base, commit) == "train.py"
    assert tree.tree(commit) != tree.tree(base)


def test_a_source_reads_back_byte_for_byte(tree: Workspace) -> None:
    source = "LR = 0.25\r\n# µ\n\ttab, no newline at the end"
    commit = tree.commit(1, source, "x")
    assert tree.read(commit, "train.py") == source


def test_a_diff_shows_the_change_and_applies_nothing_of_the_tree(tree: Workspace, tmp_path: Path) -> None:
    base = tree.head()
    commit = tree.commit(1, "LR = 0.2\nprint('café')\n", "x")
    assert tree.diff(base, base) == ""
    shown = tree.diff(base, commit).splitlines()
    assert shown[0] == "diff --git a/train.py b/train.py"
    assert shown[-3:] == ["-LR = 0.1", "+LR = 0.2", " print('café')"]
    # neither an attribute in the tree nor a driver in its configuration makes git run a program
    (tree.path / ".gitattributes").write_text("*.py diff=evil\n")
    for key in ("command", "textconv"):
        git(tree.path, "config", f"diff.evil.{key}", f"touch {tmp_path / 'ran'};")
    assert tree.diff(base, commit).splitlines() == shown
    assert not (tmp_path / "ran").exists()
    with pytest.raises(EnvironmentNotReady, match="git diff failed"):
        tree.diff(base, "--output=somewhere")


def test_keeping_moves_branch_and_files(tree: Workspace) -> None:
    first = tree.commit(1, "LR = 0.2\n", "better")
    second = tree.commit(2, "LR = 0.3\n", "worse")
    tree.keep(first)
    assert tree.head() == first
    assert (tree.path / "train.py").read_text() == "LR = 0.2\n"
    assert git(tree.path, "status", "--porcelain") == ""
    third = tree.commit(3, "LR = 0.4\n", "on top of it")
    assert git(tree.path, "rev-parse", f"{third}^") == first
    # a discarded experiment stays reachable
    assert git(tree.path, "for-each-ref", "--format=%(objectname)", "refs/experiments").split() == [
        first,
        second,
        third,
    ]
    git(tree.path, "gc", "--prune=now", "--quiet")
    assert tree.read(second, "train.py") == "LR = 0.3\n"


def test_opening_again_changes_nothing(tree: Workspace) -> None:
    commit = tree.commit(1, "LR = 0.2\n", "better")
    tree.keep(commit)
    again = Workspace.open(tree.path, "20260101-000000", SNAPSHOT)
    assert again.head() == commit
    assert (tree.path / "train.py").read_text() == "LR = 0.2\n"


def test_a_killed_session_leaves_a_tree_that_opens(tree: Workspace, tmp_path: Path) -> None:
    commit = tree.commit(1, "LR = 0.2\n", "better")
    for name in ("index.lock", "candidate-index.lock", "refs/heads/autoresearch/20260101-000000.lock"):
        (tree.path / ".git" / name).write_bytes(b"")
    again = Workspace.open(tree.path, "20260101-000000", SNAPSHOT)
    again.keep(again.commit(2, "LR = 0.3\n", "more"))
    assert again.read(commit, "train.py") == "LR = 0.2\n"
    # killed while the tree was first made: nothing is there yet, and what was begun is no hindrance
    begun = tmp_path / "other" / ".tree.new"
    begun.mkdir(parents=True)
    (begun / "train.py").write_text("half")
    assert Workspace.open(tmp_path / "other" / "tree", "tag", SNAPSHOT).read("HEAD", "train.py").startswith("LR = 0.1")


def test_a_folder_of_somebody_elses_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine.txt").write_text("keep me")
    with pytest.raises(EnvironmentNotReady, match="Cannot create the work tree"):
        Workspace.open(tmp_path / "tree", "tag", SNAPSHOT)
    assert [path.name for path in (tmp_path / "tree").iterdir()] == ["mine.txt"]


def test_the_same_experiment_twice_is_no_trouble(tree: Workspace) -> None:
    """A session that was killed between commit and journal proposes the same again."""
    first = tree.commit(1, "LR = 0.2\n", "better")
    again = tree.commit(1, "LR = 0.2\n", "better")
    assert tree.tree(first) == tree.tree(again)
    assert git(tree.path, "rev-parse", "refs/experiments/0001") == again


def test_the_owners_git_does_not_reach_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks, templates, signing, line ends, aliases and environment of the user are all not applied."""
    home, trace = tmp_path / "home", tmp_path / "hooked"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    for name in (
        "pre-commit",
        "post-commit",
        "commit-msg",
        "post-checkout",
        "reference-transaction",
        "post-index-change",
    ):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> '{trace}'\nexit 1\n")
        (hooks / name).chmod(0o755)
    template = home / "template" / "hooks"
    shutil.copytree(hooks, template)
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hooks}\n\tautocrlf = true\n\texcludesFile = {home / 'ignore'}\n"
        f"[init]\n\ttemplateDir = {home / 'template'}\n\tdefaultBranch = other\n"
        "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = /nonexistent\n"
        "[user]\n\tname = Owner\n\temail = owner@example.org\n"
        "[tar]\n\tumask = 0077\n"
    )
    (home / "ignore").write_text("train.py\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(home))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hooks))
    assert os.environ["HOME"] == str(home)

    workspace = Workspace.open(tmp_path / "tree", "tag", SNAPSHOT)
    commit = workspace.commit(1, "LR = 0.2\n", "better")
    workspace.keep(commit)
    assert not trace.exists()
    assert not (tmp_path / "elsewhere").exists()
    assert bundle.read_tree(workspace.path) == {**SNAPSHOT, "train.py": b"LR = 0.2\n"}
    raw = workspace._git("cat-file", "commit", commit)
    assert "gpgsig" not in raw
    assert "author miner <miner@localhost>" in raw
    assert "committer miner <miner@localhost>" in raw


def test_what_git_refuses_is_one_clear_error(tree: Workspace) -> None:
    with pytest.raises(EnvironmentNotReady, match="git show failed") as refusal:
        tree.read(tree.head(), "absent.py")
    assert "\n" not in refusal.value.problem
    assert refusal.value.cure
    shutil.rmtree(tree.path / ".git" / "objects")
    with pytest.raises(EnvironmentNotReady, match="git"):
        tree.read(tree.branch, "train.py")


def test_no_git_at_all(tree: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentNotReady, match="git is not installed"):
        tree.head()


def test_many_are_read_at_once(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "tree", "t", SNAPSHOT)
    texts = [f"x = {number}\n# \u00e9" + "y" * number for number in range(3)]
    commits = [workspace.commit(number, text, "h") for number, text in enumerate(texts)]
    assert workspace.read_many([*commits, commits[0]], "train.py") == [*texts, texts[0]]
    assert workspace.read_many([], "train.py") == []
    with pytest.raises(EnvironmentNotReady, match="has no " + "0" * 40 + ":train.py"):
        workspace.read_many([commits[0], "0" * 40], "train.py")


def test_a_session_of_another_user_is_named_as_such(tree: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `sudo`, or in a mounted folder: git's own advice, a setting, has no effect here."""
    isolated = common_git.isolated
    monkeypatch.setattr(common_git, "isolated", lambda home: isolated(home) | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})
    with pytest.raises(Refused, match="git does not work in another user's folder") as refusal:
        Workspace.open(tree.path, "20260101-000000", SNAPSHOT).head()
    assert f"chown -R $USER {tree.path}" in refusal.value.cure


def test_loose_objects_are_packed_once_there_are_many(
    tree: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[str, int]:
        text = common_git.run(tree.path, "count-objects", "-v", environment=common_git.isolated(tree.path))
        return {name: int(value) for name, value in (line.split(": ") for line in text.decode().splitlines())}

    tried = tree.commit(1, "LR = 0.2\n", "twice as fast")
    tree.pack()
    assert counted()["packs"] == 0
    monkeypatch.setattr(worktree, "LOOSE", 256)
    fillers = []
    for number in range(700):  # git estimates by one of 256 folders
        fillers.append(tmp_path / f"{number}")
        fillers[-1].write_text(f"{number}")
    given = "".join(f"{path}\n" for path in fillers).encode()
    common_git.run(tree.path, "hash-object", "-w", "--stdin-paths", environment=os.environ, given=given)
    tree.pack()
    assert counted()["packs"] == 1
    assert tree.read(tried, "train.py") == "LR = 0.2\n"
    assert tree.read(tree.head(), "train.py") == SNAPSHOT["train.py"].decode()
    assert tree.commit(2, "LR = 0.3\n", "faster still") != tried
    (tree.path / ".git" / "gc.pid").write_text("1 elsewhere")
    tree.pack()  # whatever git says of it


def test_a_pack_that_fails_stops_nothing(tmp_path: Path) -> None:
    Workspace(tmp_path / "missing", "tag").pack()
