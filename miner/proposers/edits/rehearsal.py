"""A rehearsal: a train.py made tiny and run for two steps, before a change costs a trial.

`script` gives one Python file that stands in for the project's harness (random tokens, a budget of a moment), shrinks
what it can by name, and runs the candidate on the CPU. It fails where the candidate fails, and where

- a loss or logit is not finite, or the losses have not one value for each target;
- the logits of a position change with a token that comes later.

It runs as any candidate does, in the sandbox where there is one. What passes may still lose; what fails here would
have failed for the price of a trial.
"""

from __future__ import annotations

import re

from trainer.errors import TrainerError
from trainer.project import sites
from trainer.project.hyperparameters import Value

SECONDS = 120  # a rehearsal that takes longer has failed
_TINY: tuple[tuple[str, int], ...] = (
    (r"TOTAL_BATCH", 64),
    (r"EVAL.*BATCH|BATCH.*EVAL", 2),
    (r"BATCH", 2),
    (r"^DEPTH$|N_LAYERS?$|NUM_LAYERS$", 2),
    (r"HEAD_DIM", 16),
    (r"ASPECT_RATIO", 16),
    (r"(MODEL|EMBED)\w*_DIM$|N_EMBD$|D_MODEL", 32),
)
_STAGE = """
import math, signal, sys, types
if hasattr(signal, "alarm"):
    signal.alarm({seconds})
import mlx.core as mx
mx.set_default_device(mx.cpu)
{compiling}
stage = types.ModuleType("prepare")
stage.MAX_SEQ_LEN, stage.TIME_BUDGET = 32, 0.05
class Tokenizer:
    @classmethod
    def from_directory(cls, *args, **kwargs):
        return cls()
    def get_vocab_size(self):
        return 64
    def get_bos_token_id(self):
        return 0
def make_dataloader(tokenizer, batch, length, *args, **kwargs):
    while True:
        tokens = mx.random.randint(0, 64, (batch, length + 1))
        yield tokens[:, :-1], tokens[:, 1:], 1
def evaluate_bpb(model, *args, **kwargs):
    tokens = mx.random.randint(0, 63, (2, 33))
    losses, logits = model(tokens[:, :-1], tokens[:, 1:], reduction="none"), model(tokens[:, :-1])
    if losses.size != 64 or logits.size != 64 * 64:
        raise SystemExit("the losses or logits have the wrong shape")
    if not (mx.isfinite(losses).all().item() and mx.isfinite(logits).all().item()):
        raise SystemExit("the losses or logits are not finite")
    later = mx.concatenate([tokens[:, :31], tokens[:, 31:32] + 1], axis=1)
    if mx.abs(model(later)[:, :31] - logits[:, :31]).max().item() > 1e-2:
        raise SystemExit("a position sees the tokens after it")
    return losses.astype(mx.float32).mean().item() / math.log(2)
stage.Tokenizer, stage.make_dataloader, stage.evaluate_bpb = Tokenizer, make_dataloader, evaluate_bpb
sys.modules["prepare"] = stage
exec(compile({source!r}, "train.py", "exec"), {{**globals(), "__name__": "__main__"}})
"""


_PLAIN = "mx.disable_compile()"
_COMPILING = f"""
try:
    mx.eval(mx.compile(lambda a: mx.exp(a) + 1)(mx.ones(3)))
except RuntimeError:  # MLX needs a C++ compiler for that, which not every machine has
    {_PLAIN}
"""


def script(source: str, before: str = "") -> str:
    """The rehearsal of a train.py, as one file; it prints what the train.py prints and fails where that fails.

    Nothing is compiled, which would take half a minute, unless the train.py compiles more than the one `before` it.
    """
    more = source.count("mx.compile") > before.count("mx.compile")
    return _STAGE.format(seconds=SECONDS, compiling=_COMPILING if more else _PLAIN, source=shrunk(source))


def shrunk(source: str) -> str:
    """The script with the sizes it has names for made tiny."""
    changes: dict[str, Value] = {}
    for site in sites.find(source):
        size = next((size for words, size in _TINY if re.search(words, site.name)), None)
        if size is not None and site.kind == "int" and not site.lifted and size < site.value:  # type: ignore[operator]
            changes[site.name] = size
    try:
        return sites.replace(source, changes)
    except TrainerError:
        return source
