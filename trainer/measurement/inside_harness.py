"""Reads the facts of a pinned harness in the sandbox, where no candidate is: python -I inside_harness.py

HARNESS names its prepare.py. The validation rows are those that the harness's own `evaluate_bpb` shows to a model
(with batch size 1, so that no harness drops rows that do not fill a batch). That model returns known losses, and
the number that comes out must be the formula the parent uses: only then does the parent stand in for it.

Into the scratch: facts.json; rows.i32, raw int32 (N, T + 1); bytes.i32, raw int32 (V,). A harness without the API,
or with another formula, gives facts.json with `problem` alone. Failures, such as missing data, end in a traceback.
With an argument, a JSON list of texts: rows.i32 is instead the texts encoded by the harness's tokenizer, each
begun with BOS, laid end to end and cut into rows of T + 1 tokens; the rest is dropped.
"""

import importlib.util
import json
import math
import os
import sys

import mlx.core as mx
import numpy as np

NAMES = ("MAX_SEQ_LEN", "TIME_BUDGET", "EVAL_TOKENS", "VAL_FILENAME", "Tokenizer", "make_dataloader")
FUNCTIONS = ("get_token_bytes", "evaluate_bpb")


class Unsupported(Exception):
    """A harness whose evaluation cannot be done in its place."""


def load(path):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("prepare", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module
    spec.loader.exec_module(module)
    missing = [name for name in (*NAMES, *FUNCTIONS) if not hasattr(module, name)]
    if missing:
        raise Unsupported(f"it has no {', '.join(missing)}")
    return module


def known_losses(shape):
    """Between 0.25 and 1.75 nats and exact in float32; they differ by position."""
    return (np.arange(np.prod(shape)) % 7 + 1).reshape(shape).astype(np.float32) / 4


def read(prepare):
    tokenizer = prepare.Tokenizer.from_directory()
    length = prepare.MAX_SEQ_LEN
    rows = []

    def model(x, y, reduction="mean"):
        x, y = np.array(x), np.array(y)
        if reduction != "none" or x.ndim != 2 or x.shape != y.shape or x.shape[1] != length:
            raise Unsupported("it does not call model(x, y, reduction='none') with rows of MAX_SEQ_LEN tokens")
        if not np.array_equal(x[:, 1:], y[:, :-1]):
            raise Unsupported("its targets are not its inputs one position ahead")
        rows.append(np.concatenate([x, y[:, -1:]], axis=1))
        return mx.array(known_losses(x.shape))

    result = float(prepare.evaluate_bpb(model, tokenizer, 1))
    token_bytes = np.array(prepare.get_token_bytes())
    if not rows or token_bytes.shape != (int(tokenizer.get_vocab_size()),):
        raise Unsupported("it shows no rows, or its byte counts are not one per token")
    expected_rows = prepare.EVAL_TOKENS // length
    rows = np.concatenate(rows).astype("<i4")
    if len(rows) != expected_rows:
        raise Unsupported(f"it evaluates {len(rows)} rows and not EVAL_TOKENS // MAX_SEQ_LEN = {expected_rows}")
    counts = token_bytes[rows[:, 1:]]
    nats = np.tile(known_losses((1, length)), (len(rows), 1)).astype(np.float64)
    expected = nats[counts > 0].sum() / (math.log(2) * counts.sum(dtype=np.int64))
    if not math.isclose(result, expected, rel_tol=1e-5):
        raise Unsupported(f"its formula is another one: {result:.6f} for losses that give {expected:.6f} bits per byte")
    facts = {
        "problem": "",
        "rows": len(rows),
        "length": length,
        "vocabulary": len(token_bytes),
        "budget_seconds": float(prepare.TIME_BUDGET),
        "val_filename": prepare.VAL_FILENAME,
    }
    return facts, rows, token_bytes.astype("<i4")


def encode(prepare, texts):
    tokenizer = prepare.Tokenizer.from_directory()
    documents = tokenizer.encode(texts, prepend=tokenizer.get_bos_token_id())
    tokens = np.concatenate([np.asarray(document, "<i4") for document in documents])
    size = prepare.MAX_SEQ_LEN + 1
    return tokens[: len(tokens) // size * size].reshape(-1, size)


def main(texts=None):
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
