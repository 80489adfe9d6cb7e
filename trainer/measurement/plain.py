"""Whether a train.py's own evaluation fits on a machine: what the protocol's plain command needs beyond ours.

A harness evaluates as many rows at once as the script asks for, and makes one array of all their logits. The trusted
measurement takes a few rows at a time and does not need it.
"""

from __future__ import annotations

import ast
import warnings
from typing import Final

_BYTES: Final = 4  # of a logit, float32
_MOST: Final = 1 << 20  # rows


def evaluation_batch(source: bytes) -> int | None:
    """The batch size that a script evaluates with: the last argument of its call of evaluate_bpb, a number or a name
    that is given one at the top; None if it cannot be read off.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: object = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            given = [*node.args[2:], *(word.value for word in node.keywords if word.arg == "batch_size")]
            if name == "evaluate_bpb" and given:
                last = given[-1]
                found = last.value if isinstance(last, ast.Constant) else names.get(getattr(last, "id", ""))
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found <= _MOST else None


def too_large(batch: int | None, length: int, vocabulary: int, buffer_bytes: int) -> str:
    """Why an evaluation of `batch` rows of `length` tokens does not run where one array may have `buffer_bytes` (0:
    unknown); "" where it may.
    """
    needed = (batch or 0) * length * vocabulary * _BYTES
    if not buffer_bytes or needed <= buffer_bytes:
        return ""
    return (
        f"it evaluates {batch} rows at once, in an array of {needed / 1e9:.1f} GB, and Metal allows "
        f"{buffer_bytes / 1e9:.1f} GB on this machine"
    )
