"""A folder of scripts and diffs: order, each once, what no longer fits is said; and diffs by themselves."""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.proposers import diffs
from miner.proposers.base import ProposerFailed
from miner.proposers.patches import Patches
from tests.miner.proposers.support import SOURCE, baseline, context, tried
from trainer.errors import TrainerError


def diff(old: str, new: str, before: str = "a/train.py", after: str = "b/train.py") -> str:
    return "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), before, after))


def with_lr(value: str, source: str = SOURCE) -> str:
    return source.replace("EMBED_LR = 0.01", f"EMBED_LR = {value}")


def test_in_name_order_each_once(tmp_path: Path) -> None:
    folder, said = tmp_path / "patches", list[str]()
    folder.mkdir()
    deeper = SOURCE.replace("DEPTH = 1 ", "DEPTH = 2 ")
    (folder / "01.py").write_text(with_lr("0.02"))
    (folder / "02.py").write_text("# the same again\n" + with_lr("0.02"))
    (folder / "03.diff").write_text(diff(SOURCE, deeper))
    (folder / "04.patch").write_text(diff(SOURCE.replace("HEAD_DIM = 16", "HEAD_DIM = 99"), SOURCE))
    (folder / "05.py").write_text("def f(:\n")
    (folder / "06.py").write_bytes(b"\xff\xfe")
    (folder / "07.py").write_text(with_lr("0.04"))
    (folder / "notes.txt").write_text("not a patch")
    (folder / "08.py").mkdir()
    proposer, history, names = Patches(folder, said.append), [baseline()], []
    while (candidate := proposer.propose(context(tmp_path, history))) is not None:
        names.append(candidate.hypothesis)
        history.append(tried(len(history), candidate, SOURCE))
    assert names == ["patch 01.py", "patch 03.diff", "patch 07.py"]
    assert [line.split()[1].rstrip(":") for line in said] == ["04.patch", "05.py", "06.py"]
    assert "does not apply" in said[0]
    assert Patches(folder, said.append).propose(context(tmp_path, history)) is None
    (folder / "04.patch").write_text(diff(SOURCE, with_lr("0.08")))
    candidate = proposer.propose(context(tmp_path, history))
    assert candidate is not None
    assert candidate.source == with_lr("0.08")


def test_a_diff_applies_to_the_incumbent_of_its_turn(tmp_path: Path) -> None:
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "a.diff").write_text(diff(SOURCE, SOURCE.replace("DEPTH = 1 ", "DEPTH = 2 ")))
    better = with_lr("0.02")
    candidate = Patches(folder, print).propose(context(tmp_path, source=better))
    assert candidate is not None
    assert candidate.source == better.replace("DEPTH = 1 ", "DEPTH = 2 ")
    kept = [baseline(better), tried(1, candidate, better, 0.1, "keep")]
    assert Patches(folder, pytest.fail).propose(context(tmp_path, kept, source=candidate.source)) is None


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="not a folder"):
        Patches(tmp_path / "missing", print)


@pytest.mark.parametrize(
    ("before", "after"),
    [("a/train.py", "b/train.py"), ("train.py", "train.py"), ("a/train.py\t2026-01-01", "b/train.py\t2026-01-02")],
)
def test_headers(before: str, after: str) -> None:
    assert diffs.apply(SOURCE, diff(SOURCE, with_lr("0.5"), before, after)) == with_lr("0.5")


def test_hunks_alone_and_wrong_counts() -> None:
    text = diff(SOURCE, with_lr("0.5"))
    hunk = text[text.index("@@") :]
    assert diffs.apply(SOURCE, hunk) == with_lr("0.5")
    wrong = "@@ -40,9 +30,2 @@" + hunk[hunk.index("\n") :]
    assert diffs.apply(SOURCE, wrong) == with_lr("0.5")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@@ -1,1 +1,1 @@\n-no such line\n+other\n",
        diff(SOURCE, with_lr("0.5"), "a/prepare.py", "b/prepare.py"),
        diff(SOURCE, with_lr("0.5"), "a/../train.py", "b/../train.py"),
        diff(SOURCE, with_lr("0.5"), "/etc/passwd", "/etc/passwd"),
        "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x = 1\n",
        diff(SOURCE, with_lr("0.5")) + "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x = 1\n",
        "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+/etc/passwd\n",
        "diff --git a/train.py b/train.py\ndeleted file mode 100644\n" + diff(SOURCE, "", after="/dev/null"),
        "diff --git a/train.py b/other.py\nrename from train.py\nrename to other.py\n",
    ],
)
def test_what_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ProposerFailed):
        diffs.apply(SOURCE, text)


LINES = st.lists(st.text("ab =1#é\t", max_size=6), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(LINES, LINES)
def test_any_diff_gives_the_new_text(old: list[str], new: list[str]) -> None:
    before, after = "".join(f"{line}\n" for line in old), "".join(f"{line}\n" for line in new)
    if before != after:
        assert diffs.apply(before, diff(before, after)) == after


@settings(max_examples=25, deadline=None)
@given(st.text("@-+ ,0123\nab/", max_size=80))
def test_any_text_is_applied_or_refused(text: str) -> None:
    with contextlib.suppress(ProposerFailed):
        diffs.apply("a\nb\n", text)
