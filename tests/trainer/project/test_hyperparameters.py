"""Finding and replacing constants, as a table and as properties."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trainer.errors import InvalidBundle, TrainerError
from trainer.project import hyperparameters
from trainer.project.hyperparameters import Value, fingerprint

SCRIPT = '''"""A script."""
import math  # not a constant

# Model
DEPTH = 4  # layers
ASPECT_RATIO=64;HEAD_DIM = 128
WINDOW_PATTERN = "SSSL"  # é
TOTAL_BATCH_SIZE = 2**19 // 4
LR: float = 3e-4
DECAY = (-0.5)
TIED = True
LONG = (1 +
        2)
WORDS = "a" 'b'

ADAM_BETAS = (0.8, 0.95)
DERIVED = DEPTH * 2
PI = math.pi
lower = 3
NOTHING = None
TEXT = f"{DEPTH}"
TWICE = 1
TWICE = 2
GROWING = 1
GROWING += 1
COMPLEX = (-8) ** 0.5
HUGE = 10**100
SLOW = 9**9**9**9
ZERO = 1 / 0
NEGATED = -True
A = B = 1
UNSET: int


def train():
    global SHADOWED
    SHADOWED = 2
    return DEPTH


SHADOWED = 1
if True:
    NESTED = 1
'''


def values(source: str) -> dict[str, Value]:
    """The constants by name."""
    return {constant.name: constant.value for constant in hyperparameters.find(source)}


def test_find() -> None:
    found = hyperparameters.find(SCRIPT)
    assert {constant.name: constant.value for constant in found} == {
        "DEPTH": 4,
        "ASPECT_RATIO": 64,
        "HEAD_DIM": 128,
        "WINDOW_PATTERN": "SSSL",
        "TOTAL_BATCH_SIZE": 131072,
        "LR": 3e-4,
        "DECAY": -0.5,
        "TIED": True,
        "LONG": 3,
        "WORDS": "ab",
    }
    assert {constant.name: constant.kind for constant in found}["TIED"] == "bool"
    assert {constant.name: constant.lineno for constant in found}["LR"] == 9
    texts = {constant.name: SCRIPT[slice(*constant.span)] for constant in found}
    assert texts["TOTAL_BATCH_SIZE"] == "2**19 // 4"
    assert texts["DECAY"] == "-0.5"


def test_replace() -> None:
    new = hyperparameters.replace(
        SCRIPT, {"DEPTH": 6, "WINDOW_PATTERN": 'L"', "TOTAL_BATCH_SIZE": 7, "LR": 1, "TIED": False}
    )
    expected = SCRIPT
    for old, text in (
        ("DEPTH = 4  # layers", "DEPTH = 6  # layers"),
        ('WINDOW_PATTERN = "SSSL"  # é', "WINDOW_PATTERN = 'L\"'  # é"),
        ("2**19 // 4", "7"),
        ("LR: float = 3e-4", "LR: float = 1.0"),
        ("TIED = True", "TIED = False"),
    ):
        expected = expected.replace(old, text)
    assert new == expected
    assert hyperparameters.replace(SCRIPT, values(SCRIPT)) == SCRIPT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MISSING", 1),
        ("lower", 1),
        ("SHADOWED", 2),
        ("DEPTH", 1.0),
        ("DEPTH", True),
        ("DEPTH", "4"),
        ("TIED", 1),
        ("LR", float("nan")),
        ("LR", float("inf")),
        ("WORDS", 3),
    ],
)
def test_replace_refuses(name: str, value: Value) -> None:
    with pytest.raises(TrainerError, match=name):
        hyperparameters.replace(SCRIPT, {name: value})


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_survive(newline: str) -> None:
    source = newline.join(['A = """x', 'é"""; B = 1  # é', "C = (2 *", "  3)", "\f", "D = 'é'; E = 5"])
    assert hyperparameters.replace(source, {"B": 2, "C": 7, "E": 6}) == source.replace("B = 1", "B = 2").replace(
        f"2 *{newline}  3", "7"
    ).replace("E = 5", "E = 6")


@pytest.mark.parametrize(
    "source",
    [
        "def",
        "A = \0",
        "(" * 500,
        "-" * 100_000 + "1",
        "A = " + "1+" * 100_000 + "1",
        "A\udc80 = 1",
        "#" * 2_000_000,
    ],
)
def test_what_does_not_parse_is_refused(source: str) -> None:
    with pytest.raises(InvalidBundle, match="not valid Python"):
        hyperparameters.fingerprint(source)


def test_the_number_of_constants_is_bounded() -> None:
    assert (
        len(hyperparameters.find("\n".join(f"C{n} = {n}" for n in range(1000)))) == hyperparameters.MAX_HYPERPARAMETERS
    )


def test_the_fingerprint_knows_code_from_formatting() -> None:
    source = "A = 1\n\n\ndef f(x):\n    return x + A\n"
    assert fingerprint(source) == fingerprint("A=1 # one\ndef f(x): return (x+A)")
    assert fingerprint(source) != fingerprint(source.replace("A = 1", "A = 2"))
    assert fingerprint(source) != fingerprint(source.replace("x + A", "A + x"))


NAMES = st.lists(st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), min_size=1, max_size=5, unique=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
KINDS: list[st.SearchStrategy[Value]] = [st.integers(-(2**60), 2**60), NUMBER, st.booleans(), TEXT]
PAIR = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(kind, kind))
NOISE = st.text(st.characters(categories=["L", "N", "P", "Zs"], include_characters="\t\f"), max_size=12)


@given(st.data(), NAMES)
def test_replace_keeps_everything_else(data: st.DataObject, names: list[str]) -> None:
    old, new = zip(*[data.draw(PAIR) for _ in names], strict=True)
    gaps = [data.draw(st.sampled_from(["\n", "\r\n", "\n\n", "; "])) for _ in names]
    notes = ["" if gap == "; " else "  # " + data.draw(NOISE) for gap in gaps]

    def script(values: list[Value]) -> str:
        lines = zip(names, values, notes, gaps, strict=True)
        return '"é"\n' + "".join(f"{n} = {v!r}{note}{gap}" for n, v, note, gap in lines)

    try:
        ast.parse(script(list(old)))
    except SyntaxError:
        assume(False)
    changed = hyperparameters.replace(script(list(old)), dict(zip(names, new, strict=True)))
    kept = [was if was == now else now for was, now in zip(old, new, strict=True)]
    assert changed == script(kept)
    assert values(changed) == dict(zip(names, kept, strict=True))


@given(st.text(alphabet="AB=1.-+*/\"'()# \n\r:;é\f\\e", max_size=60))
def test_any_text_is_read_or_refused(source: str) -> None:
    try:
        found = hyperparameters.find(source)
    except InvalidBundle:
        return
    for constant in found:
        text = source[slice(*constant.span)]
        assert eval(f"({text}\n)", {"__builtins__": {}}) == constant.value
        assert hyperparameters.replace(source, {constant.name: constant.value}) == source


def test_this_projects_own_script_has_constants() -> None:
    source = (Path(__file__).parents[3] / "trainer" / "train.py").read_text()
    found = values(source)
    assert len(found) >= 5
    assert fingerprint(source) == fingerprint(hyperparameters.replace(source, found))


@pytest.mark.parametrize(
    ("old", "new", "only"),
    [
        ("SEED = 42\nX = 1", "SEED = 4\nX = 1", True),
        ("SEED = 42\nX = 1", "SEED = 4\nX = 2", False),
        ("SEED = 42", "SEED = 42  # the same", False),
        ("import mlx.core as mx\nmx.random.seed(1)", "import mlx.core as mx\nmx.random.seed(2**5)", False),
        ("import mlx.core as mx\nmx.random.seed(1)", "import mlx.core as mx\nmx.random.seed(2)", True),
        ("k = mx.random.key(1)", "k = mx.random.key(2)", True),
        ("r = np.random.default_rng(seed=1)", "r = np.random.default_rng(seed=2)", True),
        ("init(model, seed=1)", "init(model, seed=2)", True),
        ("init(model, scale=1)", "init(model, scale=2)", False),
        ("run_seed: int = 3", "run_seed: int = 5", True),
        ("X = 1", "X = 1", False),
    ],
)
def test_a_change_of_nothing_but_a_seed(old: str, new: str, only: bool) -> None:
    assert hyperparameters.changes_seeds_only(old, new) is only
