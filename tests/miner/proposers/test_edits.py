"""The library of edits: what fits which shape of script, what it changes, what it refuses; and patterns as a table."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import libcst as cst
import pytest

from common.resources import ROOT
from miner.proposers.base import Candidate, Clue, Context, Pending, edit_of
from miner.proposers.edits import patterns
from miner.proposers.edits.catalogue import BY_NAME, CATALOGUE
from miner.proposers.edits.patterns import DoesNotFit
from miner.proposers.edits.proposer import Edits, ranked
from tests.miner.proposers.support import baseline, context, tried
from trainer.project import hyperparameters

SCRIPTS = Path(__file__).parent / "scripts"
SOURCES = {name: (SCRIPTS / f"{name}.py.txt").read_text() for name in ("classic", "decaying")}
TODAY = (ROOT / "trainer" / "train.py").read_text()


@pytest.mark.parametrize(
    ("old", "new", "text", "expected"),
    [
        ("mx.maximum(_x, 0) ** 2", "nn.silu(_x)", "y = mx.maximum( self.up(x), 0 )**2", "y = nn.silu(self.up(x))"),
        ("_c * tanh(_l / _c)", "_l", "y = 15.0 * tanh(z / 15.0)", "y = z"),
        ("_a + _b", "_b * _a", "y = (p - q) + r", "y = r * (p - q)"),
        ("f(_x)", "_x ** 2", "y = f(a + b)", "y = (a + b) ** 2"),
        ("f(_x)", "g(_x)", "y = (f(a)).b", "y = g(a).b"),
    ],
)
def test_a_pattern_finds_and_replaces(old: str, new: str, text: str, expected: str) -> None:
    assert patterns.rewrite(cst.parse_module(text), [(old, new)]).code == expected


@pytest.mark.parametrize(
    ("old", "text"),
    [("_c * tanh(_l / _c)", "y = 15.0 * tanh(z / 30.0)"), ("f(_x)", "y = f(a, b)"), ("f(_x)", "y = g(a)")],
)
def test_what_a_pattern_does_not_find_is_refused(old: str, text: str) -> None:
    with pytest.raises(DoesNotFit):
        patterns.rewrite(cst.parse_module(text), [(old, "1")])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only\n",
        "x = 1",
        "# above\nx = 1  # beside\n\n# below\n",
        "if x:\n\ty = 1\n",
        "x = 1\r\ny = 2\r\n",
        "\n\n",
    ],
)
def test_a_tree_is_spelt_as_it_was_read(text: str) -> None:
    assert patterns.text_of(cst.parse_module(text)) == text


def test_every_edit_has_its_own_name_and_says_what_it_does() -> None:
    assert len(BY_NAME) == len(CATALOGUE) >= 40
    for edit in CATALOGUE:
        assert edit.words
        assert edit.looks_for
        assert edit.worth > 0
        assert len(edit.words) < 150


# Which edits do not fit: the rest of the library does, with a valid script that differs.
NOT = {
    "classic": {
        *("squared-relu", "logit-cap", "value-embeddings", "embedding-skip", "qk-norm", "decoupled-decay"),
        *("cautious-decay", "even-steps", "momentum-warm-up"),
    },
    "decaying": {
        *("squared-relu", "logit-cap", "tied-embeddings", "values-everywhere", "plain-gates", "fused-norm", "qk-norm"),
        *("long-rope", "shared-keys", "full-windows", "causal-by-name", "muon", "cautious", "compiled-gradient"),
        *("fewer-waits", "cautious-decay", "even-steps", "momentum-warm-up", "shifted-keys"),
    },
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_fits_which_shape(name: str) -> None:
    source, refused = SOURCES[name], set[str]()
    for edit in CATALOGUE:
        try:
            changed = edit(source)
        except DoesNotFit:
            refused.add(edit.name)
            continue
        ast.parse(changed)
        assert hyperparameters.fingerprint(changed) != hyperparameters.fingerprint(source)
    assert refused == NOT[name]


def test_the_baseline_of_today_takes_many() -> None:
    fits = set[str]()
    for edit in CATALOGUE:
        try:
            ast.parse(edit(TODAY))
            fits.add(edit.name)
        except DoesNotFit:
            continue
    assert len(fits) >= 29
    assert {"attention-gate", "shifted-keys", "cautious", "cautious-decay", "even-steps", "momentum-warm-up"} <= fits


@pytest.mark.parametrize(
    ("script", "edit", "there", "gone"),
    [
        ("classic", "silu", "x = nn.silu(x)", "mx.maximum(x, 0) ** 2"),
        ("decaying", "silu", "nn.silu(self.up(norm(x)))", ".square()"),
        ("classic", "no-logit-cap", "logits = logits", "mx.tanh"),
        ("classic", "values-everywhere", "return True", "layer_idx % 2"),
        ("classic", "peri-norm", "x = x + norm(self.mlp(norm(x)))", "x = x + self.mlp(norm(x))"),
        ("decaying", "peri-norm", "return x + norm(self.down(", "return x + self.down("),
        ("decaying", "value-embeddings", "v = v + values.reshape(B, T, self.heads, HEAD_DIM)", "x = block(x)\n"),
        ("classic", "muon", 'if "blocks" in path and grad.ndim == 2:', "nothing of the kind"),
        ("decaying", "decoupled-decay", "weight_decay=0.0", "weight_decay=WEIGHT_DECAY"),
        ("classic", "full-windows", "short_window = long_window\n", "long_window // 2"),
        ("classic", "causal-by-name", '= "causal"', "= create_additive_causal_mask("),
        ("classic", "cosine-schedule", "return shaped(cooldown + (1 - cooldown) * FINAL_LR_FRAC)", "return cooldown"),
        ("classic", "parallel-block", "x = x + beside + self.mlp(norm(x))", "x = x + self.mlp"),
        ("classic", "average-weights", "averaged = None", "nothing of the kind"),
        (
            "classic",
            "pair-embeddings",
            "x = x + (0.1 * pairs).astype(x.dtype)\n        x = norm(x)",
            "nothing of the kind",
        ),
        ("decaying", "pair-embeddings", "self.embedding_pairs = nn.Embedding(65536, MODEL_DIM)", "nothing of the kind"),
        ("classic", "master-weights", 'masters["weights"] = model.trainable_parameters()', "nothing of the kind"),
        ("decaying", "master-weights", "[model.state, optimizer.state, masters]", "[model.state, optimizer.state]"),
        ("today", "attention-gate", "self.output_gate = Matrix(MODEL_DIM, deviation=0.0)", "nothing of the kind"),
        ("today", "shifted-keys", "self.k(mx.concatenate([x[:, :1], x[:, 1:] + x[:, :-1]], axis=1))", "self.k(x)"),
        ("classic", "shifted-keys", "self.c_k(mx.concatenate([x[:, :1], x[:, 1:] + x[:, :-1]], axis=1))", "c_k(x)"),
        ("today", "cautious", "* (mean * gradients[path] > 0) / size", "(1 - ADAM_BETA1**count)) / size"),
        ("today", "cautious-decay", "* (step * weights[path] > 0))", "step + WEIGHT_DECAY * weights[path])"),
        ("today", "even-steps", "steps = even(orthogonalise(", "steps = orthogonalise("),
        ("today", "momentum-warm-up", "late_momentum * self.state[str(shape)]", "MUON_MOMENTUM * momentum +"),
        ("today", "raw-embedding", "x = start = self.embedding.rows(tokens) + ngrams", "norm(self.embedding"),
        ("classic", "shared-keys", "n_kv_head=(model_dim // HEAD_DIM) // 2 if", "n_kv_head=model_dim // HEAD_DIM,"),
    ],
)
def test_the_shape_of_an_effect(script: str, edit: str, there: str, gone: str) -> None:
    changed = BY_NAME[edit](TODAY if script == "today" else SOURCES[script])
    assert there in changed
    assert gone not in changed


def test_a_loss_with_a_gradient_written_by_hand_keeps_its_logits() -> None:
    source = SOURCES["classic"].replace(
        "class AdamW:", "@mx.custom_function\ndef loss(x):\n    return x\n\n\nclass AdamW:"
    )
    for name in ("no-logit-cap", "low-precision-logits"):
        with pytest.raises(DoesNotFit, match="by hand"):
            BY_NAME[name](source)


def test_the_order_is_the_prior_and_then_what_happened_here() -> None:
    order = [edit.name for edit in ranked([], [], "", 1)]
    assert {"silu", "muon", "swiglu", "no-logit-cap"} == set(order[:4])
    source = SOURCES["classic"]
    lost = [Candidate(BY_NAME[n](source), f"edit {n}: words") for n in ("silu", "gelu")]
    history = [baseline(source), *(tried(n, c, source) for n, c in enumerate(lost, 1))]
    later = [edit.name for edit in ranked(history, [], "", 1)]
    assert "silu" not in later
    assert later.index("swiglu") > later.index("no-logit-cap")
    heard = [Clue("edit:smear", None, None, 0.1, 1.0)] * 4
    assert [e.name for e in ranked([], heard, "", 1)].index("smear") < order.index("smear")


def test_what_was_kept_has_taken_its_part_of_an_alternatives_gain() -> None:
    """A second activation, or the one before again, is no further 0.079; a second edit of the optimizer may be."""
    source = SOURCES["classic"]

    def order(kept: str, delta: float) -> list[str]:
        candidate = Candidate(BY_NAME[kept](source), f"edit {kept}: words")
        history = [baseline(source), tried(1, candidate, source, delta, "keep")]
        return [edit.name for edit in ranked(history, [], "", 1)]

    before = [edit.name for edit in ranked([], [], "", 1)]
    little, much = order("silu", 0.005), order("silu", 0.06)
    assert little.index("swiglu") < before.index("swiglu") < much.index("swiglu")
    assert much.index("squared-relu") > before.index("squared-relu")
    assert order("muon", 0.06).index("average-weights") < before.index("average-weights")


def test_an_edit_that_is_being_tried_is_not_tried_on_another_best_as_well(tmp_path: Path) -> None:
    source = SOURCES["classic"]
    seen = replace(context(tmp_path, source=source), rehearse=None)
    first = Edits(1).propose(seen)
    assert first is not None
    name = edit_of(first.hypothesis)
    pending = [Pending(1, "of another best", f"crossover: trial 3 on the best: {first.hypothesis}")]
    second = Edits(1).propose(replace(seen, pending=pending))
    assert second is not None
    assert edit_of(second.hypothesis) not in ("", name)


@pytest.mark.parametrize(
    ("hypothesis", "name"),
    [
        ("edit silu: SiLU in place of squared ReLU", "silu"),
        ("crossover: trial 3 on the best: edit no-logit-cap: logits without a cap", "no-logit-cap"),
        ("crossover: trials 3 to 5 on the best: edit silu: SiLU", "silu"),
        ("crossover: trial 7 on the best: crossover: trial 3 on the best: edit silu: SiLU", "silu"),
        ("trial 7 again: crossover: trial 3 on the best: edit silu: SiLU", "silu"),
        ("crossover: trial 3 on the best: DEPTH 4 -> 8", ""),
        ("edit the schedule", ""),
        ("an edit silu: no", ""),
    ],
)
def test_which_edit_a_hypothesis_tells_of(hypothesis: str, name: str) -> None:
    assert edit_of(hypothesis) == name


def test_what_lost_on_our_accelerators_comes_later_there() -> None:
    here, there = ([e.name for e in ranked([], [], hardware, 1)] for hardware in ("Apple M4", "nvidia-h200"))
    lost = {"swiglu", "no-logit-cap", "fused-norm", "compiled-gradient", "values-everywhere", "causal-by-name"}
    assert all(there.index(name) > here.index(name) for name in lost)
    assert {*here[:2]} == {*there[:2]} == {"silu", "muon"}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("pair-embeddings", "no-logit-cap"),
        ("pair-embeddings", "compiled-gradient"),
        ("pair-embeddings", "values-everywhere"),
        ("smear", "u-net-skips"),
        ("smear", "low-precision-logits"),
        ("half-rope", "full-windows"),
        ("tied-embeddings", "master-weights"),
        ("u-net-skips", "attention-gate"),
        ("u-net-skips", "shifted-keys"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_what_gained_in_our_pairs_comes_before_what_did_not(earlier: str, later: str, seed: int) -> None:
    there = [edit.name for edit in ranked([], [], "nvidia-h200", seed)]
    assert there.index(earlier) < there.index(later)


def test_an_edit_rehearses_before_it_costs_a_trial(tmp_path: Path) -> None:
    source, rehearsed, said = SOURCES["classic"], list[str](), list[str]()

    def rehearse(script: str) -> str:
        rehearsed.append(script)
        return "" if script == source or "_orthogonal_step" in script else "it broke"

    seen = context(tmp_path, source=source)
    given = Context(source, seen.protocol, seen.history, "", 1, tmp_path, rehearse=rehearse)
    candidate = Edits(1, said.append).propose(given)
    assert candidate is not None
    assert candidate.hypothesis.startswith("edit muon: ")
    assert rehearsed[0] == source
    assert any("silu fails its rehearsal: it broke" in line for line in said)


def test_where_the_script_itself_cannot_rehearse_the_edit_is_tried(tmp_path: Path) -> None:
    source = SOURCES["classic"]
    seen = context(tmp_path, source=source)
    given = Context(source, seen.protocol, seen.history, "", 1, tmp_path, rehearse=lambda _: "no module named x")
    assert Edits(1).propose(given) is not None
    assert Edits(1).propose(context(tmp_path, source="print('nothing')\n")) is None
