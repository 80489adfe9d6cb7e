"""The module `prepare` as a candidate sees it: the pinned harness, but to evaluate is to freeze the model.

Mounted beside train.py in the sandbox, where it wins over every other `prepare`. It loads the real harness from
HARNESS under another name and passes on all its names. What it changes:

  - `evaluate_bpb(model, ...)` runs `model(x)` once, writes it as an MLX graph of int32 (B, T) -> float32
    (B, T, V) to the scratch, tells the parent on the channel and waits to be killed. The other arguments are
    ignored, and it never returns, so the first call is final.
  - `make_dataloader(..., "val")` raises FileNotFoundError: the validation shard is not here.
  - With SALT, every seed or key that the script gives to MLX, NumPy or `random` is mixed with it, and training begins
    some batches further on in the data: a script that was chosen for a lucky seed has no luck with another salt.
  - TIME_BUDGET is BUDGET_SHARE of the harness's, where the parent asks for a shorter run of the incumbent.
  - Functions made with mx.checkpoint and mx.custom_function become plain ones while the graph is written, because
    MLX cannot serialise them; a forward pass computes the same without.

It runs in the candidate's process and is a convenience, not a guard: a candidate that writes its own graph and
sends the word itself is measured like any other.
"""

import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType
from typing import Any, NoReturn

import mlx.core as mx
import numpy as np

_CHANNEL = 3
_DETAIL_CHARACTERS = 500


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pinned_prepare", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["pinned_prepare"] = module
    spec.loader.exec_module(module)
    return module


_harness = _load(os.environ["HARNESS"])
if "BUDGET_SHARE" in os.environ:
    _harness.TIME_BUDGET = float(os.environ["BUDGET_SHARE"]) * _harness.TIME_BUDGET  # type: ignore[attr-defined]
globals().update({name: value for name, value in vars(_harness).items() if not name.startswith("__")})

_SALT = os.environ.get("SALT", "")
_MOST_SKIPPED = 64  # batches


def _salted(seed: Any, bits: int = 64) -> int:
    """The seed that stands for `seed` under this run's salt."""
    return int.from_bytes(sha256(f"{_SALT} {seed!r}".encode()).digest()[: bits // 8], "big")


_replaced: dict[int, Any] = {}  # by the id of what was there


def _replace(owner: Any, name: str, salted: Any) -> None:
    _replaced[id(getattr(owner, name))] = salted
    setattr(owner, name, salted)


def _mix_into(owner: Any, name: str, bits: int = 64) -> None:
    """Have `owner.name(seed, ...)` get the salted seed; None stays, since that asks for a random one."""
    plain = getattr(owner, name)

    def call(seed: Any = None, *more: Any, **named: Any) -> Any:
        return plain(seed if seed is None else _salted(seed, bits), *more, **named)

    _replace(owner, name, call)


_KEY_PLACE = {  # of the argument `key` of each function of mx.random
    **dict.fromkeys(("uniform", "normal", "randint", "laplace", "categorical"), 4),
    **dict.fromkeys(("truncated_normal", "multivariate_normal"), 4),
    **dict.fromkeys(("bernoulli", "gumbel", "permutation"), 2),
    "split": 0,
}


def _mix_into_keys(name: str, place: int) -> None:
    """Have a function of mx.random draw by salted keys: a key is an array, which a script can write down itself."""
    plain, salt = getattr(mx.random, name), np.frombuffer(bytes.fromhex(_SALT)[:8], "<u4")

    def mixed(key: Any) -> Any:
        return key ^ mx.array(salt) if isinstance(key, mx.array) else key

    def call(*given: Any, **named: Any) -> Any:
        given = (*given[:place], *map(mixed, given[place : place + 1]), *given[place + 1 :])
        return plain(*given, **{word: mixed(value) if word == "key" else value for word, value in named.items()})

    _replace(mx.random, name, call)


def _mix_into_kind(owner: Any, name: str, bits: int) -> None:
    """Have the class `owner.name` begin with the salted seed."""
    plain = getattr(owner, name)

    def begin(self: Any, seed: Any = None, *more: Any, **named: Any) -> None:
        plain.__init__(self, seed if seed is None else _salted(seed, bits), *more, **named)

    _replace(owner, name, type(name, (plain,), {"__init__": begin}))


class _SaltedRandom(random.Random):
    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(a if a is None else _salted(a), version)


if _SALT:
    for _owner, _name, _bits in (
        (mx.random, "seed", 64),
        (np.random, "seed", 32),
        (np.random, "default_rng", 64),
        (random, "seed", 64),
    ):
        _mix_into(_owner, _name, _bits)
    for _name, _place in _KEY_PLACE.items():
        _mix_into_keys(_name, _place)
    for _name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64", "RandomState"):
        _mix_into_kind(np.random, _name, 32)
    _replace(random, "Random", _SaltedRandom)
    for _name, _value in list(vars(sys.modules["__main__"]).items()):  # what was imported by name before this module
        if id(_value) in _replaced:
            setattr(sys.modules["__main__"], _name, _replaced[id(_value)])
    for _generator in (mx.random, np.random, random):
        _generator.seed("what was seeded before this module was imported")

_freezing = False
_checkpoint, _custom_function = mx.checkpoint, mx.custom_function


def _checkpoint_unless_freezing(function: Callable[..., Any]) -> Callable[..., Any]:
    checkpointed = _checkpoint(function)

    def call(*arguments: Any, **named: Any) -> Any:
        return (function if _freezing else checkpointed)(*arguments, **named)

    return call


class _CustomUnlessFreezing:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._custom = function, _custom_function(function)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return (self._function if _freezing else self._custom)(*arguments, **named)

    def __getattr__(self, name: str) -> Any:  # vjp, jvp, vmap
        return getattr(self._custom, name)


setattr(mx, "checkpoint", _checkpoint_unless_freezing)  # noqa: B010
setattr(mx, "custom_function", _CustomUnlessFreezing)  # noqa: B010


def make_dataloader(tokenizer: Any, batch_size: int, seq_len: int, split: str, *more: Any, **named: Any) -> Any:
    """The harness's own loader, under a salt some batches on; FileNotFoundError for "val"."""
    if split == "val":
        raise FileNotFoundError(f"{_harness.VAL_FILENAME}: there is no validation shard in training")
    loader = _harness.make_dataloader(tokenizer, batch_size, seq_len, split, *more, **named)
    for _ in range(_salted("batches") % _MOST_SKIPPED if _SALT else 0):
        next(loader)
    return loader


class _Refused(Exception):
    pass


def _freeze(model: Callable[[mx.array], Any], path: str) -> None:
    global _freezing
    _freezing = True
    mx.disable_compile()
    shape = (int(os.environ["BATCH"]), _harness.MAX_SEQ_LEN, int(os.environ["VOCABULARY"]))
    x = mx.zeros(shape[:2], mx.int32)
    logits = model(x)
    wanted = f"model(x) with x of shape {shape[:2]} must return float logits of shape {shape}"
    if not isinstance(logits, mx.array):
        raise _Refused(f"{wanted}, got {type(logits).__name__}")
    if logits.shape != shape or not mx.issubdtype(logits.dtype, mx.floating):
        raise _Refused(f"{wanted}, got {logits.dtype} of shape {tuple(logits.shape)}")
    mx.eval(logits)
    mx.export_function(path, lambda x: (model(x).astype(mx.float32),), x)


def evaluate_bpb(model: Callable[[mx.array], Any], *ignored: Any, **also_ignored: Any) -> NoReturn:
    """Freeze `model` for the parent, which measures it elsewhere. Never returns."""
    try:
        _freeze(model, os.path.join(os.environ["SCRATCH"], "graph.mlxfn"))
        word = {"event": "frozen"}
    except Exception as error:
        reason = str(error) if isinstance(error, _Refused) else f"{type(error).__name__}: {error}"
        word = {"event": "not_exportable", "detail": reason[:_DETAIL_CHARACTERS]}
    print(f"---\npeak_vram_mb:     {mx.get_peak_memory() / 2**20:.1f}", flush=True)
    os.write(_CHANNEL, json.dumps(word).encode() + b"\n")
    while True:
        time.sleep(60)
