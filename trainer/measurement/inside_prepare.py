"""The module `prepare` as a candidate sees it: the pinned harness, but evaluating freezes the model and ends the run.

Mounted beside train.py in the sandbox, where it wins over every other `prepare`. It loads the real harness from
HARNESS under another name and passes on all its names. What it changes:

  - `evaluate_bpb(model, ...)` runs `model(x)` once, writes it as an MLX graph of int32 (1, T) -> float32
    (1, T, V) to the scratch, tells the parent on the channel and waits to be killed. The other arguments are
    ignored, and it never returns, so the first call is final.
  - `make_dataloader(..., "val")` raises FileNotFoundError: the validation shard is not here.
  - Functions made with mx.checkpoint and mx.custom_function become plain ones while the graph is written, because
    MLX cannot serialise them; a forward pass computes the same without.

It runs in the candidate's process and is a convenience, not a guard: a candidate that writes its own graph and
sends the word itself is measured like any other.
"""

import importlib.util
import json
import os
import sys
import time

import mlx.core as mx

_CHANNEL = 3
_DETAIL_CHARACTERS = 500


def _load(path):
    spec = importlib.util.spec_from_file_location("pinned_prepare", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["pinned_prepare"] = module
    spec.loader.exec_module(module)
    return module


_harness = _load(os.environ["HARNESS"])
globals().update({name: value for name, value in vars(_harness).items() if not name.startswith("__")})

_freezing = False
_checkpoint, _custom_function = mx.checkpoint, mx.custom_function


def _checkpoint_unless_freezing(function):
    checkpointed = _checkpoint(function)

    def call(*arguments, **named):
        return (function if _freezing else checkpointed)(*arguments, **named)

    return call


class _CustomUnlessFreezing:
    def __init__(self, function):
        self._function, self._custom = function, _custom_function(function)

    def __call__(self, *arguments, **named):
        return (self._function if _freezing else self._custom)(*arguments, **named)

    def __getattr__(self, name):  # vjp, jvp, vmap
        return getattr(self._custom, name)


mx.checkpoint, mx.custom_function = _checkpoint_unless_freezing, _CustomUnlessFreezing


def make_dataloader(tokenizer, batch_size, seq_len, split, *more, **named):
    """The harness's own loader; FileNotFoundError for "val"."""
    if split == "val":
        raise FileNotFoundError(f"{_harness.VAL_FILENAME}: the validation shard is not available to train.py")
    return _harness.make_dataloader(tokenizer, batch_size, seq_len, split, *more, **named)


class _Refused(Exception):
    pass


def _freeze(model, path):
    global _freezing
    _freezing = True
    mx.disable_compile()
    shape = (1, _harness.MAX_SEQ_LEN, int(os.environ["VOCABULARY"]))
    x = mx.zeros(shape[:2], mx.int32)
    logits = model(x)
    found = f"{tuple(logits.shape)} of {logits.dtype}" if isinstance(logits, mx.array) else type(logits).__name__
    if not isinstance(logits, mx.array) or logits.shape != shape or not mx.issubdtype(logits.dtype, mx.floating):
        raise _Refused(f"model(x) with x of shape {shape[:2]} must return float logits of shape {shape}, got {found}")
    mx.eval(logits)
    mx.export_function(path, lambda x: (model(x).astype(mx.float32),), x)


def evaluate_bpb(model, *ignored, **also_ignored):
    """Freeze `model` for the parent, which measures it elsewhere. Never returns."""
    try:
        _freeze(model, os.path.join(os.environ["SCRATCH"], "graph.mlxfn"))
        word = {"event": "frozen"}
    except Exception as error:
        reason = str(error) if isinstance(error, _Refused) else f"{type(error).__name__}: {error}"
        word = {"event": "not_exportable", "detail": reason[:_DETAIL_CHARACTERS]}
    sys.stdout.flush()
    os.write(_CHANNEL, json.dumps(word).encode() + b"\n")
    while True:
        time.sleep(60)
