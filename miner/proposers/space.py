"""The sites of a script as dimensions of a search: which may turn, on what scale, how eagerly, and how far first.

Every number has a coordinate in which a step of one is a doubling, so that learning rates, widths and shares can
be searched alike:

- `log`: log2 of the value; rates, bases and small integers.
- `power`: the same over powers of two; batch sizes, head widths, what is spelt `2**n`.
- `multiple`: the same over multiples of a power of two that divides the value, 64 for 320; larger integers.
- `complement`: -log2(1 - value); momenta and betas, for which 0.9 -> 0.95 is one step. Zero is on it.
- `share`: log2(1 + value / unit); what may be zero, that is, off: decays, warm-up, dropout, initial scales.
- `signed`: the same with the value's sign, for negative numbers and what scales a branch.
- `choice`: no order; true or false, window patterns of short (S) and long (L) attention, and the words that the
  script itself compares a text with.

Seeds, what belongs to the evaluation, keeps the time, names data or is a mere limit are never dimensions.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from trainer.project import hyperparameters, sites
from trainer.project.hyperparameters import Value
from trainer.project.sites import Site

Scale = Literal["log", "power", "multiple", "complement", "share", "signed", "choice"]

_FIXED = re.compile(
    r"SEED|EVAL|FLOPS|COEFF|(^|_)(VAL|VALID|TIME|BUDGET|SECONDS|STARTUP|EXCLUDE|TIMEOUT|LOG|PRINT|VOCAB|DATA|DATASET|"
    r"LIMIT|BYTES|INTERVAL|EVERY|WORKERS|THREADS|PATIENCE|PORT|VERSION|CACHE|PREFETCH|PATH|DIR|NAME|DEBUG|VERBOSE)(_|$)"
    r"|(^|_)MAX_(STEPS?|ITERS?|ITERATIONS|TOKENS|EPOCHS)|SEQ_LEN|(^|_)(DEVICE|PEAK_\w+)$"
)
_PATTERNS = ("L", "SL", "SSL", "SSSL", "SSSSL")
_SMALL = 16  # below this an integer moves in ones, unless its role is a size


@dataclass(frozen=True, slots=True)
class DimensionRole:
    """What a word in a name tells.

    `weight` orders what moves first, `scale` is None where the value tells, `unit` is that of a share, `stride` the
    doublings in one step of a `log` scale. `far` are the first looks far away with their worth, the expected gain in
    hundredths of bpb: "off", "-" (the other sign), "*f", "/f", "=v". `accelerated` are those on a discrete
    accelerator, where they are others, and `orthogonal` those there of a script that orthogonalises its steps.
    """

    words: tuple[str, ...]
    weight: float
    scale: Scale | None
    far: tuple[tuple[str, float], ...]
    unit: float = 0.05
    stride: float = 1.0
    accelerated: tuple[tuple[str, float], ...] | None = None
    orthogonal: tuple[tuple[str, float], ...] | None = None


# Where a whole batch has its own name, its part in one pass changes speed and memory alone.
_PART = DimensionRole(("DEVICE_BATCH", "MICRO_BATCH"), 1.0, "power", (("*2", 0.2), ("/2", 0.1)))
# The worth of a first look: how often such a change was kept in 159 kept changes of public sessions, times its median
# gain there; where those sessions did not look (zero decay, rates far away), what was measured on our own scripts.
# `accelerated` is by our runs on H200s (docs/measurements.md): a quarter of the batch or no decay does not win there,
# and twice the width does with Muon, whose steps suit any width, where it loses with Adam.
_WIDER = (("*2", 2.5), ("*1.5", 0.9), ("*0.75", 0.4), ("/2", 0.1))
_DECAY = DimensionRole(("DECAY",), 2.0, "share", (("off", 2.0), ("*10", 0.6), ("/10", 0.6)), unit=0.001)
ROLES: tuple[DimensionRole, ...] = (
    DimensionRole(("WARMUP", "DROPOUT", "SMOOTH"), 1.0, "share", (("=0.05", 0.15), ("off", 0.15))),
    DimensionRole(("FINAL",), 1.0, "share", (("=0.1", 0.4), ("off", 0.4))),
    DimensionRole(("WARMDOWN", "COOLDOWN"), 3.0, "share", (("=0.8", 0.7), ("/2", 0.7), ("off", 0.1))),
    replace(_DECAY, accelerated=(("*10", 0.6), ("/10", 0.6), ("off", 0.2))),
    DimensionRole(("MOMENTUM",), 1.0, "complement", (("*4", 0.45), ("/4", 0.35))),
    DimensionRole(("BETA",), 0.8, "complement", (("*4", 0.3), ("/4", 0.3))),
    DimensionRole(("EPS",), 0.2, "log", (("*1000", 0.08), ("/1000", 0.02)), stride=6.0),
    DimensionRole(("X0_LAMBDA", "RESID_LAMBDA"), 0.8, "signed", (("*4", 0.2), ("off", 0.2), ("-", 0.02)), unit=0.02),
    DimensionRole(("CAP", "TANH"), 1.0, "log", (("*10", 0.8), ("*2", 0.3), ("/2", 0.1))),
    DimensionRole(("ROPE.SCALE",), 0.3, "log", (("*2", 0.08), ("/2", 0.08))),
    DimensionRole(("ROPE", "BASE", "THETA"), 0.5, "log", (("*20", 0.25), ("/10", 0.2)), stride=2.0),
    DimensionRole(("ACCUM",), 1.5, None, (("/2", 0.8), ("/4", 0.6), ("*2", 0.3))),
    DimensionRole(("HEAD_DIM",), 1.0, "power", (("/2", 0.4), ("*2", 0.4)), accelerated=(("*2", 0.4), ("/2", 0.1))),
    DimensionRole(("ASPECT",), 3.0, None, (("*0.75", 0.9), ("*1.5", 0.7), ("/2", 0.4)), orthogonal=_WIDER),
    DimensionRole(("N_EMBD*", "MLP", "EXPANSION"), 1.0, None, (("/2", 0.4), ("*2", 0.4))),
    DimensionRole(("CHANNELS", "GATE_DIM"), 0.2, "power", (("*2", 0.03), ("/2", 0.03))),
    DimensionRole(("ROWS", "TABLE"), 0.8, "power", (("*2", 0.3), ("*4", 0.2), ("/2", 0.1))),
    DimensionRole(("LOCAL", "WINDOW_LEN", "WINDOW_SIZE"), 0.8, "power", (("/2", 0.2), ("*2", 0.2), ("*4", 0.1))),
    DimensionRole(("DIM", "WIDTH", "EMBD"), 3.0, None, (("*0.75", 0.9), ("*1.5", 0.7), ("/2", 0.4)), orthogonal=_WIDER),
    DimensionRole(
        ("DEPTH", "LAYER"),
        3.0,
        None,
        (("/2", 0.9), ("*1.5", 0.5), ("*2", 0.3)),
        accelerated=(("*1.5", 0.7), ("/2", 0.4), ("*2", 0.3)),
    ),
    DimensionRole(("MATRIX_LR", "MUON_LR"), 8.0, "log", (("/10", 0.9), ("*10", 0.8))),
    DimensionRole(("LR*", "LR_SCALE"), 0.5, "log", (("*10", 0.2), ("/10", 0.1))),
    DimensionRole(("LR", "LEARNING", "RATE"), 8.0, "log", (("*10", 0.8), ("/10", 0.5))),
    _PART,
    DimensionRole(
        ("BATCH",),
        6.0,
        "power",
        (("/2", 2.5), ("/4", 1.5), ("*2", 0.5)),
        accelerated=(("/2", 2.0), ("*2", 0.3), ("/4", 0.2)),
    ),
    DimensionRole(("WINDOW", "PATTERN"), 1.5, None, (("=L", 0.5), ("=SSSL", 0.2), ("*2", 0.1), ("*4", 0.1))),
)
_OTHER = DimensionRole((), 0.5, None, (("*10", 0.1), ("/10", 0.1), ("off", 0.08)))
_ORTHOGONAL = re.compile(r"muon|newton_?schulz|(?<!init\.)orthogonal|zeropower|polar_?express", re.IGNORECASE)
_COMMENT = re.compile(r"#.*|(\"\"\"|''')(?s:.*?)\1")
_RATE = re.compile(r"(^|_|\.)LR$|LEARNING_RATE$")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A site that may turn: its present value, weight and scale; `choices` only where there is no order."""

    name: str
    value: Value
    weight: float
    scale: Scale
    unit: float = 1.0
    most: float = math.inf
    choices: tuple[Value, ...] = ()
    role: DimensionRole = _OTHER

    def coordinate(self, value: Value) -> float | None:
        """Where `value` lies on the scale, or None if it is not on it; a choice's is its index."""
        if self.scale == "choice":
            return float(self.choices.index(value)) if value in self.choices else None
        if isinstance(value, str):
            return None
        number = float(value)
        if self.scale == "signed":
            return math.copysign(math.log2(1 + abs(number) / self.unit), number)
        if self.scale == "share":
            return math.log2(1 + number / self.unit) if number >= 0 else None
        if self.scale == "complement":
            return -math.log2(1 - number) if 0 <= number < 1 else None
        return math.log2(number) / self.role.stride if number > 0 else None

    def at(self, coordinate: float) -> Value:
        """The nearest value at a coordinate that the site's kind and role allow."""
        if self.scale == "choice":
            return self.choices[min(max(round(coordinate), 0), len(self.choices) - 1)]
        coordinate = min(max(coordinate, -60.0), 60.0)
        if self.scale in ("share", "signed"):
            number = math.copysign(self.unit * (math.exp2(abs(coordinate)) - 1), coordinate)
            if self.scale == "share":
                number = min(max(number, 0.0), self.most)
            return self._like(0.0 if abs(number) < self.unit / 25 else _rounded(number))
        if self.scale == "complement":
            rest = float(f"{math.exp2(-coordinate):.2g}")
            return round(1 - min(max(rest, 1e-6), 1.0), 8)
        coordinate = min(max(coordinate * self.role.stride, -60.0), 60.0)
        if isinstance(self.value, float):
            return _rounded(min(math.exp2(coordinate), self.most))
        if self.scale == "power":
            return 1 << max(0, round(coordinate))
        unit = int(self.unit)
        return unit * max(1, round(math.exp2(coordinate) / unit))

    def apart(self, a: float, b: float) -> float:
        """How far two coordinates lie apart, in steps that are worth a trial: below one, they are the same idea."""
        if self.scale == "choice":
            return 0.0 if round(a) == round(b) else math.inf
        if a == b:
            return 0.0
        zero = self.coordinate(0)
        if zero is not None and zero in (a, b):
            return math.inf if abs(a - b) > 0.3 else 1.0  # off is an idea of its own
        return abs(a - b) / (0.12 if isinstance(self.value, int) else MIN_STEP)

    def far(self, *, accelerated: bool = False, orthogonal: bool = False) -> list[tuple[Value, float]]:
        """The first looks far from the present value on this class of machine, for a script that orthogonalises its
        steps or not, each with its worth."""
        role = self.role
        looks = role.far
        if accelerated:
            looks = (role.orthogonal if orthogonal else None) or role.accelerated or role.far
        if self.scale == "choice":
            named = {word[1:]: worth for word, worth in looks if word.startswith("=")}
            return [(c, named.get(str(c), 0.1)) for c in self.choices if c != self.value]
        found: list[tuple[Value, float]] = []
        for word, worth in looks:
            value = self._moved(word)
            if value is not None and value != self.value and value not in [known for known, _ in found]:
                found.append((value, worth))
        return found

    def _moved(self, word: str) -> Value | None:
        number = float(self.value)
        if word == "off":
            return self._like(0.0) if self.scale in ("share", "signed", "complement") else None
        if word == "-":
            return self._like(-number) if self.scale == "signed" else None
        argument = word[1:]
        if word[0] == "=":
            try:
                coordinate = self.coordinate(float(argument))
            except ValueError:
                return None
            return None if coordinate is None else self.at(coordinate)
        factor = float(argument) if word[0] == "*" else 1 / float(argument)
        if self.scale == "complement":  # ten times the momentum is a tenth of what is forgotten
            coordinate = self.coordinate(number)
            return None if coordinate is None else self.at(max(0.0, coordinate + math.log2(factor)))
        if number == 0:  # nothing to multiply: the role's own size
            return self.at(5.0 if factor > 1 else 1.0) if self.scale in ("share", "signed") else None
        moved = number * factor
        coordinate = self.coordinate(min(moved, self.most))
        return None if coordinate is None else self.at(coordinate)

    def _like(self, number: float) -> Value:
        return round(number) if isinstance(self.value, int) else number


MIN_STEP = 0.3  # doublings between two trials of a real number


@lru_cache(maxsize=256)
def dimensions(source: str) -> list[Dimension]:
    """The dimensions of a script, in the order of its sites."""
    words, places = _compared(source), sites.find(source)
    roles, found = _roles(places, source), []
    for site in places:
        if not _FIXED.search(site.name.upper()):
            dimension = _dimension(site, roles[site.name], source, words)
            if dimension is not None:
                found.append(dimension)
    return found


def point(dims: Sequence[Dimension], values: Mapping[str, Value]) -> tuple[float, ...] | None:
    """The coordinates of a script's values, or None if one is missing or off its scale."""
    found = []
    for dimension in dims:
        value = values.get(dimension.name)
        coordinate = None if value is None else dimension.coordinate(value)
        if coordinate is None:
            return None
        found.append(coordinate)
    return tuple(found)


@lru_cache(maxsize=1024)
def orthogonalises(source: str) -> bool:
    """Whether a script's optimizer makes its steps orthogonal, as Muon does."""
    return _ORTHOGONAL.search(_COMMENT.sub("", source)) is not None


def together(dims: Sequence[Dimension], *, accelerated: bool = False) -> list[tuple[dict[str, Value], float]]:
    """First looks that move several dimensions at once, each with its worth: all rates, a batch with its part."""
    found: list[tuple[dict[str, Value], float]] = []
    rates = [d for d in dims if d.scale == "log" and _RATE.search(d.name.upper())]
    if len(rates) > 1:
        for word, worth in (("*4", 1.2), ("/4", 0.9), ("*16", 0.4)):
            moved = {d.name: value for d in rates if (value := d._moved(word)) is not None}
            found.append((moved, worth))
    whole = [d for d in dims if "BATCH" in d.name.upper() and "TOTAL" in d.name.upper()]
    part = [d for d in dims if "BATCH" in d.name.upper() and "TOTAL" not in d.name.upper()]
    if len(whole) == len(part) == 1:  # the whole must stay a multiple of the part
        for word, worth in (("/2", 1.0), ("/4", 0.2)) if accelerated else (("/2", 2.0), ("/4", 1.5)):
            pair = {d.name: value for d in (*whole, *part) if (value := d._moved(word)) is not None}
            found.append((pair, worth))
    return [(moved, worth) for moved, worth in found if moved]


def role_of(name: str) -> DimensionRole:
    """What a site's name tells of it."""
    upper = name.upper()
    return next((role for role in ROLES if any(word in upper for word in role.words)), _OTHER)


def _roles(found: Sequence[Site], source: str) -> dict[str, DimensionRole]:
    """The sites' roles; a part of a batch has the whole's where no whole has a name.

    Decay within MLX's Muon goes into the gradient and is made as large as the step: off is worth a look anywhere.
    """
    roles = {site.name: role_of(site.name) for site in found}
    if not any("TOTAL" in name and "BATCH" in name for name in roles):
        roles = {name: role_of("BATCH") if role is _PART else role for name, role in roles.items()}
    if _decays_gradients(source):
        roles = {name: _DECAY if role.words == _DECAY.words else role for name, role in roles.items()}
    return roles


def _decays_gradients(source: str) -> bool:
    """Whether a call of `Muon` has a weight decay other than zero."""
    for node in ast.walk(hyperparameters.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="Muon") | ast.Attribute(attr="Muon"), keywords=keywords):
                given = [k.value for k in keywords if k.arg == "weight_decay"]
                if any(not isinstance(value, ast.Constant) or value.value for value in given):
                    return True
    return False


def _dimension(site: Site, role: DimensionRole, source: str, words: Mapping[str, tuple[str, ...]]) -> Dimension | None:
    name, value = site.name, site.value
    weight, scale = role.weight, role.scale
    if isinstance(value, bool):
        return Dimension(name, value, weight, "choice", choices=(False, True), role=role)
    if isinstance(value, str):
        if value and not set(value.upper()) - {"S", "L"} and any(word in name for word in ("WINDOW", "PATTERN")):
            choices = tuple(dict.fromkeys((value, *_PATTERNS)))
        else:
            choices = tuple(dict.fromkeys((value, *words.get(name, ()))))
        return Dimension(name, value, weight, "choice", choices=choices, role=role) if len(choices) > 1 else None
    if value < 0 or scale == "signed":
        return Dimension(name, value, weight, "signed", role.unit, role=role)
    if isinstance(value, int) and not (scale == "share" and value == 0):
        return _whole(name, value, role, " ".join(source[slice(*span)] for span in site.spans))
    if scale == "share" or value == 0:
        # A fraction stays a fraction, a decay or a scale need not.
        share = not any(word in name.upper() for word in ("DECAY", "LAMBDA"))
        most = (1.0 if "DOWN" in name.upper() else 0.95) if share and value <= 1 else math.inf
        return Dimension(name, value, weight, "share", role.unit, most, role=role)
    if scale == "complement" and value < 1:
        return Dimension(name, value, weight, "complement", role=role)
    fraction = 0 < value < 1 and scale is None
    return Dimension(name, value, weight, "log", most=0.95 if fraction else math.inf, role=role)


def _whole(name: str, value: int, role: DimensionRole, text: str) -> Dimension | None:
    weight = role.weight
    if value == 0:
        return Dimension(name, value, weight, "choice", choices=(0, 1), role=role)
    even = value & -value  # the largest power of two that divides it
    if even == value and (role.scale == "power" or "**" in text):
        return Dimension(name, value, weight, "power", role=role)
    if value < _SMALL or role.scale == "log":
        return Dimension(name, value, weight, "log", role=role)
    return Dimension(name, value, weight, "multiple", unit=max(1, min(even, 64, value // 4)), role=role)


def _compared(source: str) -> dict[str, tuple[str, ...]]:
    """For each name in capitals, the texts that the script compares it with: what it may be."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(hyperparameters.parse(source)):
        match node:
            case ast.Compare(
                left=ast.Name(id=name), ops=[ast.Eq() | ast.NotEq()], comparators=[ast.Constant(value=str(text))]
            ):
                found.setdefault(name, []).append(text)
            case ast.Compare(
                left=ast.Name(id=name),
                ops=[ast.In() | ast.NotIn()],
                comparators=[ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts)],
            ):
                found.setdefault(name, []).extend(
                    p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)
                )
            case ast.Subscript(value=ast.Dict(keys=keys), slice=ast.Name(id=name)):
                found.setdefault(name, []).extend(
                    k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str)
                )
    return {name: tuple(dict.fromkeys(texts)) for name, texts in found.items() if name.isupper()}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
