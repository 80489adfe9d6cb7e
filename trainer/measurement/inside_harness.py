"""Reads the facts of a pinned harness in the sandbox, where no candidate is: python -I inside_harness.py

HARNESS names its prepare.py. The validation rows are those that the harness's own `evaluate_bpb` shows to a model
(with batch size 1, so that no harness drops rows that do not fill a batch). That model returns known losses, and
the number that comes out must be the formula the parent uses: only then does the parent stand in for the harness.

Into the scratch: facts.json; rows.i32, raw int32 (N, T + 1); bytes.i32, raw int32 (V,). A harness without the API,
or with another formula, gives facts.json with `problem` alone. Failures, such as missing data, end in a traceback.
With an argument, a JSON list of texts, rows.i32 is instead these texts encoded by the harness's tokenizer, each
begun with BOS, laid end to end and cut into rows of T + 1 tokens; the rest is dropped.
"""

import importlib.util
import json
import math
import os
import sys
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np

NAMES = (
    *("MAX_SEQ_LEN", "TIME_BUDGET", "EVAL_TOKENS", "VAL_FILENAME"),
    *("Tokenizer", "make_dataloader", "get_token_bytes", "evaluate_bpb"),
)


class Unsupported(Exception):
    """A harness whose evaluation cannot be done in its place."""


def load(path: str) -> ModuleType:
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("prepare", path)
    if spec is None or spec.loader is None:
        raise Unsupported(f"{os.path.basename(path)} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module
    spec.loader.exec_module(module)
    if missing := [name for name in NAMES if not hasattr(module, name)]:
        raise Unsupported(f"it has no {', '.join(missing)}")
    return module


def known_losses(length: int) -> Any:
    """float32 (1, T), between 0.25 and 1.75 nats, exact, different from position to position."""
    return (np.arange(length, dtype=np.float32)[None] % 7 + 1) / 4


def read(prepare: ModuleType) -> tuple[dict[str, Any], Any, Any]:
    """The facts, the rows and the byte counts. Unsupported if the harness is of another kind."""
    tokenizer = prepare.Tokenizer.from_directory()
    length = prepare.MAX_SEQ_LEN
    shown = []

    def model(inputs: mx.array, targets: mx.array, reduction: str = "mean") -> mx.array:
        x, y = np.array(inputs), np.array(targets)
        if reduction != "none" or x.shape != (1, length) or y.shape != x.shape:
            raise Unsupported('it does not call model(x, y, reduction="none") with rows of MAX_SEQ_LEN tokens')
        if not np.array_equal(x[:, 1:], y[:, :-1]):
            raise Unsupported("its targets are not its inputs one position ahead")
        shown.append(np.concatenate([x, y[:, -1:]], axis=1))
        return mx.array(known_losses(length))

    result = float(prepare.evaluate_bpb(model, tokenizer, 1))
    token_bytes = np.array(prepare.get_token_bytes())
    if not shown or token_bytes.shape != (int(tokenizer.get_vocab_size()),):
        raise Unsupported("it shows no rows, or its byte counts are not one per token")
    rows, count = np.concatenate(shown), prepare.EVAL_TOKENS // length
    if len(rows) != count:
        raise Unsupported(f"it evaluates {len(rows)} rows and not EVAL_TOKENS // MAX_SEQ_LEN = {count}")
    bytes_of = token_bytes[rows[:, 1:]]
    nats = np.broadcast_to(known_losses(length).astype(np.float64), bytes_of.shape)
    expected = nats[bytes_of > 0].sum() / (math.log(2) * bytes_of.sum(dtype=np.int64))
    if not math.isclose(result, expected, rel_tol=1e-5):
        raise Unsupported(f"its formula is another one: it gives {result:.6f} where bits per byte are {expected:.6f}")
    facts = {
        "problem": "",
        "rows": count,
        "length": length,
        "vocabulary": len(token_bytes),
        "budget_seconds": float(prepare.TIME_BUDGET),
        "val_filename": prepare.VAL_FILENAME,
    }
    return facts, rows.astype("<i4"), token_bytes.astype("<i4")


def encode(prepare: ModuleType, texts: list[str]) -> Any:
    """int32 (N, T + 1): rows of other text."""
    tokenizer = prepare.Tokenizer.from_directory()
    documents = tokenizer.encode(texts, prepend=tokenizer.get_bos_token_id())
    tokens = np.concatenate([np.array(document, "<i4") for document in documents])
    width = prepare.MAX_SEQ_LEN + 1
    return tokens[: len(tokens) // width * width].reshape(-1, width)


def main(texts: str | None = None) -> None:
    scratch = os.environ["SCRATCH"]
    try:
        prepare = load(os.environ["HARNESS"])
        if texts is not None:
            with open(texts) as file:
                encode(prepare, json.load(file)).tofile(os.path.join(scratch, "rows.i32"))
            return
        facts, rows, token_bytes = read(prepare)
        rows.tofile(os.path.join(scratch, "rows.i32"))
        token_bytes.tofile(os.path.join(scratch, "bytes.i32"))
    except Unsupported as error:
        facts = {"problem": str(error)}
    with open(os.path.join(scratch, "facts.json"), "w") as file:
        json.dump(facts, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
