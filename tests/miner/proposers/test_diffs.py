"""Diffs as models and people write them: what applies in one way applies, what does not is refused; as a table."""

from __future__ import annotations

import pytest

from miner.proposers import diffs
from miner.proposers.base import ProposerFailed

SOURCE = "A = 1\nB = 2\n\ndef f():\n    x = 1\n    return x\n\ndef g():\n    x = 1\n    return x\n"
NEW = SOURCE.replace("B = 2", "B = 3")
IN_G = "A = 1\nB = 2\n\ndef f():\n    x = 1\n    return x\n\ndef g():\n    x = 5\n    return x\n"
PLAIN = "--- a/train.py\n+++ b/train.py\n@@ -1,3 +1,3 @@\n A = 1\n-B = 2\n+B = 3\n \n"


@pytest.mark.parametrize(
    ("diff", "expected"),
    [
        (PLAIN, NEW),
        ("diff --git a/train.py b/train.py\nindex 1..2 100644\n" + PLAIN, NEW),
        (PLAIN.replace("\n", "\r\n"), NEW),
        ("\n".join("> " + line for line in PLAIN.rstrip("\n").split("\n")), NEW),
        ("\n".join("    " + line for line in PLAIN.rstrip("\n").split("\n")), NEW),
        ("\x1b[1m--- a/train.py\x1b[m\n\x1b[1m+++ b/train.py\x1b[m\n\x1b[36m@@ -1,2 +1,2 @@\x1b[m\n"
         " A = 1\n\x1b[31m-B = 2\x1b[m\n\x1b[32m+B = 3\x1b[m\n", NEW),
        ("@@ -70,9 +81,4 @@\n A = 1\n-B = 2\n+B = 3", NEW),
        ("@@\n-B = 2\n+B = 3", NEW),
        ("@@ ... @@\nA = 1\n-B = 2\n+B = 3", NEW),
        ("--- train.py\n+++ train.py\n@@\n-B = 2\n+B = 3\n", NEW),
        ("<<<<<<< SEARCH\nB = 2\n=======\nB = 3\n>>>>>>> REPLACE", NEW),
        ("*** Begin Patch\n*** Update File: train.py\n@@\n-B = 2\n+B = 3\n*** End Patch", NEW),
        ("*** Begin Patch\n*** Update File: train.py\n@@ def g():\n-    x = 1\n+    x = 5\n*** End Patch", IN_G),
        ("@@ -9 +9 @@\n-    x = 1\n+    x = 5\n", IN_G),
        ("@@ -8,2 +8,2 @@\n def g():\n-    x = 1\n+    x = 5\n", IN_G),
        ("@@ -1,0 +2 @@\n+C = 4\n", SOURCE.replace("A = 1\n", "A = 1\nC = 4\n")),
        (PLAIN + "@@ -8,2 +8,2 @@\n def g():\n-    x = 1\n+    x = 5\n", IN_G.replace("B = 2", "B = 3")),
    ],
)  # fmt: skip
def test_what_applies(diff: str, expected: str) -> None:
    assert diffs.is_diff(diff)
    assert diffs.apply(SOURCE, diff) == expected
    assert diffs.apply(SOURCE.replace("\n", "\r\n"), diff) == expected.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        ("@@\n-    x = 1\n+    x = 5\n", "there 2 times"),
        ("@@\n-nothing\n+x\n", "expects 'nothing'"),
        ("@@\n+C = 4\n", "without saying where"),
        ("@@\n A = 1\n", "no hunk that changes"),
        (PLAIN.replace("train.py", "prepare.py"), "more than train.py"),
        ("--- /dev/null\n+++ b/other.py\n@@ -0,0 +1 @@\n+x\n", "more than train.py"),
        ("*** Begin Patch\n*** Add File: train.py\n+x\n*** End Patch", "Add File"),
        ("<<<<<<< SEARCH\nB = 2\n=======\nB = 3\n", "has no end"),
        ("--- a/../train.py\n+++ b/train.py\n@@\n-B = 2\n+B = 3\n", "more than train.py"),
    ],
)
def test_what_is_refused(diff: str, words: str) -> None:
    with pytest.raises(ProposerFailed, match=words):
        diffs.apply(SOURCE, diff)


def test_a_script_is_no_diff() -> None:
    assert not diffs.is_diff(SOURCE)


@pytest.mark.parametrize(
    ("after", "onto", "expected"),
    [
        ("A\nb\nc\nd\n", "a\nb\nc\nD\n", "A\nb\nc\nD\n"),
        ("a\nB\nc\nd\n", "a\nb\nC\nd\n", "a\nB\nC\nd\n"),  # the line beside it has changed as well
        ("a\nb\nNEW\nc\nd\n", "a\nb\nc\nD\n", "a\nb\nNEW\nc\nD\n"),
        ("a\nb\nNEW\nc\nd\n", "x\ny\nz\na\nB\nC\nd\n", None),  # nothing says where it is now
        ("a\nb\nNEW\nc\nd\n", "a\nb\nNEW\nc\nD\n", None),  # it is there already
        ("a\nB\nc\nd\n", "x\nb\ny\nb\n", None),  # which of the two
    ],
)
def test_a_change_moves_where_it_fits_in_one_way(after: str, onto: str, expected: str | None) -> None:
    if expected is not None:
        assert diffs.moved("a\nb\nc\nd\n", after, onto) == expected
        return
    with pytest.raises(ProposerFailed):
        diffs.moved("a\nb\nc\nd\n", after, onto)
