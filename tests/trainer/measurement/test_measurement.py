"""Honest and hostile scripts through the real sandbox and real MLX, and the arithmetic as tables and simulations."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import require
from trainer.errors import EnvironmentNotReady, TrainerError
from trainer.machine.environment import Environment
from trainer.measurement import (
    Failure,
    Measurement,
    MeasurementPolicy,
    Measurer,
    Phase,
    Probe,
    ProbeReport,
    ScoringText,
    bits_per_byte,
    judge,
    scoring,
    supports,
    training_view,
)
from trainer.measurement.facts import harness_path, token_rows
from trainer.project import protocol
from trainer.sandbox import Job, Sandbox, choose

ROOT = Path(__file__).resolve().parents[3]
LENGTH, VOCABULARY, ROWS, BUDGET, GRACE = 64, 512, 64, 1.0, 20.0
POLICY = MeasurementPolicy(memory_bytes=1 << 30, graph_bytes=8 << 20, scratch_bytes=64 << 20, output_bytes=64 << 10)

# A small causal model with all that MLX cannot serialise as it stands.
MODEL = """
import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optim
from prepare import MAX_SEQ_LEN, TIME_BUDGET, VOCAB_SIZE, Tokenizer, evaluate_bpb, make_dataloader

@mx.custom_function
def double(x):
    return x * 2

@double.vjp
def double_vjp(primals, cotangent, output):
    return cotangent * 2

class LM(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCAB_SIZE, d), nn.Linear(d, VOCAB_SIZE)
        self.attention = nn.MultiHeadAttention(d, 2)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        self.fast_mlp = nn.utils.checkpoint(self.mlp)
        self._mask = None
    def logits(self, x):
        if self._mask is None:
            self._mask = nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])
        h = self.embedding(x)
        h = h + self.attention(h, h, h, self._mask)
        return double(self.head(h + self.fast_mlp(h)))
    def __call__(self, x, targets=None, reduction="mean"):
        z = self.logits(x)
        return z if targets is None else nn.losses.cross_entropy(z, targets, reduction=reduction)

mx.disable_compile()
mx.random.seed(7)
tokenizer = Tokenizer.from_directory()
model = LM()
loader = make_dataloader(tokenizer, 8, MAX_SEQ_LEN, "train")
def train(steps, seed=7):
    optimizer = optim.Adam(3e-3)
    gradient = nn.value_and_grad(model, lambda x, y: model(x, y))
    for _ in range(steps):
        x, y, _ = next(loader)
        optimizer.update(model, gradient(x, y)[1])
        mx.eval(model.parameters(), optimizer.state)
train(15)
"""
HONEST = MODEL + 'print(f"---\\nval_bpb: {evaluate_bpb(model, tokenizer, 7):.6f}")\n'
FORGED = (
    "import os\nSCRATCH, B = os.environ['SCRATCH'], int(os.environ['BATCH'])\n"
    'def say():\n    os.write(3, b\'{"event": "frozen"}\\n\')\n'
)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    require(sys.platform != "linux" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    return choose()


def smoke(**sizes: int) -> dict[str, bytes]:
    folder = ROOT / "configs" / "smoke"
    document = json.loads((folder / "protocol.json").read_text())
    document["execution"]["stopCondition"]["trainingSecondsBudget"] = BUDGET
    document["archetypeExtensions"]["ml_train"] |= {"evalTokens": ROWS * LENGTH, **sizes}
    return {
        "prepare.py": (ROOT / "prepare.py").read_bytes(),
        "protocol.json": json.dumps(document).encode(),
        "train.py": HONEST.encode(),
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the snapshot in `code` and its data in `cache`."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "code").mkdir()
    for name, content in smoke().items():
        (folder / "code" / name).write_bytes(content)
    text = folder / "text"
    text.mkdir()
    for source in [*sorted((ROOT / "trainer").rglob("*.py")), ROOT / "prepare.py"]:
        (text / f"{source.parent.name}-{source.name}").write_bytes(source.read_bytes())
    run_harness(folder, ["prepare.py", "--text", str(text)])
    return folder


def run_harness(project: Path, arguments: list[str]) -> str:
    environment = {**os.environ, "AUTORESEARCH_CACHE": str(project / "cache")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project / "code", env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(
    sandbox: Sandbox, project: Path, work: Path, snapshot: Mapping[str, bytes], policy: MeasurementPolicy
) -> Measurer:
    rules = protocol.parse(snapshot["protocol.json"])
    return Measurer(sandbox, Environment.running(), snapshot, project / "cache", rules, work, policy=policy)


@pytest.fixture(scope="module")
def measurer(sandbox: Sandbox, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Measurer:
    return make(sandbox, project, tmp_path_factory.mktemp("work"), smoke(), POLICY)


def measure(measurer: Measurer, script: str, **options: object) -> Measurement:
    files = smoke() | {"train.py": script.encode()}
    return measurer.measure(files, **({"grace": GRACE} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def honest(measurer: Measurer) -> Measurement:
    return measure(measurer, HONEST)


def test_the_parents_number_is_the_harnesss_own(honest: Measurement, project: Path) -> None:
    own = float(run_harness(project, ["train.py"]).rsplit("val_bpb:", 1)[1])
    assert honest.findings == ()
    assert honest.kind == "measured"
    assert honest.val_bpb == pytest.approx(own, abs=1e-4)
    assert honest.losses is not None
    assert honest.losses.shape == (ROWS * LENGTH,)
    assert honest.losses.dtype == np.float32
    assert honest.train_seconds is not None
    assert 0 < honest.train_seconds < BUDGET + GRACE
    assert set(honest.seconds) == set(Phase)
    assert "val_bpb" not in honest.log  # evaluate_bpb does not return


def test_an_honest_models_probes_agree(honest: Measurement) -> None:
    assert honest.probes is not None
    assert len(honest.probes.probes) == ROWS  # one per row
    assert abs(honest.probes.worst) < 1e-4
    assert abs(honest.probes.mean) < 1e-5
    assert honest.probes.gain_bound is None


def test_a_graph_is_scored_on_fresh_text_with_the_rest(honest: Measurement, measurer: Measurer) -> None:
    assert honest.graph is not None
    rows = measurer.encode([f"def function_{i}(x):\n    return x + {i}\n" for i in range(200)])
    assert rows.shape[1] == LENGTH + 1
    again, score = measurer.score(honest.graph, [ScoringText(measurer.facts.rows, None, 8), ScoringText(rows, None, 8)])
    assert again.val_bpb == honest.val_bpb
    assert score.findings == ()
    assert score.val_bpb is not None
    assert score.losses is not None
    assert score.val_bpb == bits_per_byte(score.losses.reshape(len(rows), -1), rows[:, 1:], measurer.facts.token_bytes)
    with pytest.raises(ValueError, match=r"T \+ 1"):
        measurer.score(honest.graph, [ScoringText(rows[:, 1:])])
    few = measurer.claim(honest.graph, measurer.facts.rows[:4])
    assert honest.losses is not None
    assert np.array_equal(few.reshape(-1), honest.losses[: 4 * LENGTH])


def test_progress_has_the_phases_and_the_scripts_lines(measurer: Measurer) -> None:
    seen: list[tuple[Phase, str]] = []
    measure(measurer, HONEST + "", progress=lambda *event: seen.append(event))
    assert [phase for phase, line in seen if not line] == [Phase.TRAINING, Phase.CLAIM, Phase.PROBES]
    seen.clear()
    script = "print('one'); print('\\x1b[2Jtwo'); import time; time.sleep(0.3)"
    measure(measurer, script, progress=lambda *event: seen.append(event))
    assert [line for _, line in seen if line] == ["one", "[2Jtwo"]


def test_a_run_is_made_on_the_gpu_that_it_is_given(measurer: Measurer) -> None:
    script = MODEL + 'print("on", os.environ.get("CUDA_VISIBLE_DEVICES"))\nevaluate_bpb(model)\n'
    found = measure(measurer.on_gpu("1"), "import os\n" + script)
    assert found.val_bpb is not None  # claimed and proved there as well
    assert "on 1" in found.log
    assert "on 1" not in measure(measurer, "import os\n" + script).log


def test_a_plain_run_is_made_there_too(measurer: Measurer) -> None:
    """Else that for the benchmark log halves the pace of the run that it is made beside."""
    files = smoke() | {"train.py": b'import os\nprint("on", os.environ.get("CUDA_VISIBLE_DEVICES"))\n'}
    assert b"on 1" in measurer.on_gpu("1").plain_run(files, seconds=60).output
    assert b"on 1" not in measurer.plain_run(files, seconds=60).output


def test_a_run_can_be_told_a_share_of_the_budget(measurer: Measurer) -> None:
    script = MODEL + 'import prepare, os\nprint("told", TIME_BUDGET, prepare.TIME_BUDGET)\nevaluate_bpb(model)\n'
    for share in (0.5, 1.0):
        told = measure(measurer, script, budget_share=share).log.partition("told ")[2].split()[:2]
        assert [float(word) for word in told] == [share * BUDGET] * 2


def test_a_plain_run_is_confined_and_gives_the_harnesss_number(measurer: Measurer, honest: Measurement) -> None:
    files = smoke() | {"train.py": (HONEST + "import os; print('sees', os.listdir('/home'))\n").encode()}
    seen: list[str] = []
    outcome = measurer.plain_run(files, seconds=60, progress=lambda _, line: seen.append(line))
    assert honest.val_bpb is not None
    own = float(outcome.output.decode().partition("val_bpb:")[2].split()[0])
    assert own == pytest.approx(honest.val_bpb, abs=1e-4)
    assert "FileNotFoundError" in outcome.output.decode().splitlines()[-1]  # there is no /home
    assert any("val_bpb" in line for line in seen)


PEEK = "z + 12.0 * (mx.arange(VOCAB_SIZE) == mx.concatenate([x[:, 1:], x[:, -1:]], axis=1)[..., None])"


def with_logits(expression: str, *, steps: str = "") -> str:
    """The honest script, but for what `model(x)` returns: `expression` of x and the honest logits z."""
    return (
        MODEL
        + steps
        + f"\ndef cheat(x):\n    z = model.logits(x)\n    return {expression}\nevaluate_bpb(cheat, None, 1)\n"
    )


HOSTILE = {
    "says a number": ("print('---\\nval_bpb:          0.100000')", Failure.NO_EVALUATION),
    "stops with an error": ("import sys; print('oh'); sys.exit('no luck')", Failure.CRASH),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", Failure.OUT_OF_MEMORY),  # as the system does
    "trains on the validation shard": (MODEL + "next(make_dataloader(tokenizer, 1, 8, 'val'))", Failure.CRASH),
    "looks at the next token": (with_logits(PEEK), Failure.NON_CAUSAL),
    "looks at it in some rows only": (
        with_logits(f"mx.where(x[:, 30:31, None] % 4 == 0, {PEEK}, z)"),
        Failure.NON_CAUSAL,
    ),
    "shifts everything by less than the tolerance": (
        with_logits("z + 9e-4 * (mx.arange(VOCAB_SIZE) == mx.concatenate([x[:, 1:], x[:, -1:]], axis=1)[..., None])"),
        Failure.NON_CAUSAL,
    ),
    "gives NaN": (with_logits("z * float('nan')"), Failure.NON_FINITE),
    "gives NaN when the future is hidden": (
        with_logits("mx.where(mx.sum(x, axis=1, keepdims=True)[..., None] > 14000, z / 0 - z / 0, z)"),
        Failure.NON_FINITE,
    ),
    "is worse than any model": (
        with_logits("mx.zeros_like(z) + 2.0**20 * (mx.arange(VOCAB_SIZE) == 0)"),
        Failure.OUT_OF_RANGE,
    ),
    "gives no logits": (
        MODEL + "evaluate_bpb(lambda x, y: model(x, y, reduction='none'), None, 1)",
        Failure.NOT_EXPORTABLE,
    ),
    "gives losses as logits": (with_logits("z[:, :, 0]"), Failure.NOT_EXPORTABLE),
    "gives integers": (with_logits("z.astype(mx.int32)"), Failure.NOT_EXPORTABLE),
    "reads the tokens in Python": (with_logits("z + x[0, 5].item()"), Failure.NOT_EXPORTABLE),
    "never ends": ("import time; time.sleep(100)", Failure.OVER_BUDGET),
    "sends the word too early": (FORGED + "say()", Failure.BAD_OUTPUT),
    "sends a link": (FORGED + "os.symlink('/etc/passwd', SCRATCH + '/graph.mlxfn'); say()", Failure.BAD_OUTPUT),
    "sends a pipe": (FORGED + "os.mkfifo(SCRATCH + '/graph.mlxfn'); say()", Failure.BAD_OUTPUT),
    "sends garbage": (FORGED + "open(SCRATCH + '/graph.mlxfn', 'wb').write(b'junk' * 99); say()", Failure.BAD_OUTPUT),
    "sends too much": (
        FORGED + "open(SCRATCH + '/graph.mlxfn', 'wb').write(bytes(9 << 20)); say()",
        Failure.BAD_OUTPUT,
    ),
    "sends a graph of another shape": (
        FORGED + "import mlx.core as mx\nx = mx.zeros((B, 64), mx.int32)\n"
        "mx.export_function(SCRATCH + '/graph.mlxfn', lambda x: (mx.zeros((B, 64, 7)) + x[..., None],), x); say()",
        Failure.BAD_OUTPUT,
    ),
    "sends a graph of another input": (
        FORGED + "import mlx.core as mx\nx = mx.zeros((B + 1, 64), mx.int32)\n"
        "mx.export_function(SCRATCH + '/graph.mlxfn', lambda x: (mx.zeros((B, 64, 512)),), x); say()",
        Failure.BAD_OUTPUT,
    ),
    "floods the channel": ("import os\nwhile True: os.write(3, b'x\\n' * 99)", Failure.OVER_RESOURCES),
    "floods the log": ("while True: print('x' * 99)", Failure.OVER_RESOURCES),
    "takes all memory": (
        "import time\na = [bytes(1) * (64 << 20) for _ in range(24)]\nb = [bytearray(x) for x in a]\ntime.sleep(60)",
        Failure.OUT_OF_MEMORY,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_script_gets_its_finding(name: str, measurer: Measurer) -> None:
    script, failure = HOSTILE[name]
    result = measure(measurer, script, grace=2.0 if failure is Failure.OVER_BUDGET else GRACE)
    assert [finding.failure for finding in result.findings] == [failure], (result.findings, result.log[-500:])
    assert (result.kind, result.val_bpb) == ("failed", None)
    assert "/etc" not in result.findings[0].detail


HARMLESS = {
    "patches the harness and prints first": (
        "print('\\rval_bpb: 0.1')\n" + MODEL + "import prepare, math; math.log = lambda v: 9e9\n"
        "prepare.get_token_bytes = None; prepare.EVAL_TOKENS = 64\nevaluate_bpb(model, None, 10**9)\n"
    ),
    "goes on in a thread, and evaluates again": (
        MODEL
        + "import threading\nfrozen = threading.Event()\n"
        + "def later():\n    frozen.wait()\n    train(1)\n    evaluate_bpb(None)\n"
        + "threading.Thread(target=later).start()\nevaluate_bpb(model, tokenizer, 3)\n"
        + "frozen.set()\nevaluate_bpb(None)\n"
    ),
    "does everything in a child": (
        "import os, sys\nif os.fork():\n    os.wait()\n    sys.exit()\n" + MODEL + "evaluate_bpb(model)\n"
    ),
    "keeps a state": (
        MODEL
        + "calls = []\ndef f(x):\n    calls.append(1)\n    return model(x) + 0.0 * len(calls)\n"
        + "evaluate_bpb(f, None, 1)\n"
    ),
    "compiles its model": (
        MODEL + "mx.enable_compile()\nf = mx.compile(model.logits)\nevaluate_bpb(lambda x: f(x), None, 1)\n"
    ),
    "sends nonsense before": (
        MODEL + "import os\nos.write(3, b'[1]\\n{}\\n\\xff\\n{\"event\": 1}\\n')\n" + "evaluate_bpb(model)\n"
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_matter_changes_nothing(name: str, measurer: Measurer, honest: Measurement) -> None:
    result = measure(measurer, HARMLESS[name])
    assert result.findings == ()
    assert result.val_bpb == pytest.approx(honest.val_bpb, abs=1e-6)


LATE_SWAP = (
    FORGED
    + """
import time
import mlx.core as mx
def save(bias):
    bent = lambda x: (mx.zeros((B, 64, 512)) + bias * (mx.arange(512) == x[..., None]),)
    mx.export_function(SCRATCH + "/next.mlxfn", bent, mx.zeros((B, 64), mx.int32))
    os.replace(SCRATCH + "/next.mlxfn", SCRATCH + "/graph.mlxfn")
save(0.0)
flood = b"\\n" * 4_100_000
while flood:
    flood = flood[os.write(1, flood[: 1 << 16]) :]
time.sleep(0.35)
say()
while True:
    time.sleep(0.2)
    save(3.0)
"""
)


def test_what_comes_after_the_word_is_not_measured(sandbox: Sandbox, project: Path, tmp_path: Path) -> None:
    """A log of millions of lines keeps the parent busy, while the script goes on and replaces its graph."""
    patient = make(sandbox, project, tmp_path, smoke(), replace(POLICY, output_bytes=MeasurementPolicy().output_bytes))
    result = measure(patient, LATE_SWAP, progress=lambda *_: None)
    assert result.findings == ()
    assert result.losses is not None
    assert result.losses == pytest.approx(math.log(VOCABULARY), abs=1e-4)  # of the graph as it was announced
    assert result.train_seconds is not None
    assert result.seconds[Phase.TRAINING] < result.train_seconds + 0.05


def test_a_huge_offset_does_not_defeat_normalisation(measurer: Measurer) -> None:
    result = measure(measurer, with_logits("z * 0 + 1e9"))  # float32 logsumexp(z) - z[target] would be 0
    assert result.losses is not None
    assert result.losses == pytest.approx(math.log(VOCABULARY), abs=1e-4)


def test_a_graph_that_cheats_on_unknown_text_only_is_found_there(measurer: Measurer, honest: Measurement) -> None:
    bos = int(measurer.facts.rows[0, 0])
    result = measure(measurer, with_logits(f"mx.where(x[:, :1, None] == {bos}, z, {PEEK})"))
    assert result.val_bpb == pytest.approx(honest.val_bpb, abs=1e-6)
    assert result.graph is not None
    rows = measurer.facts.rows.copy()
    rows[:, 0] = 65
    known, score = measurer.score(result.graph, [ScoringText(measurer.facts.rows), ScoringText(rows)])
    assert known.findings == ()
    assert [finding.failure for finding in score.findings] == [Failure.NON_CAUSAL]
    assert score.claimed_bpb is not None
    assert score.val_bpb is None


def test_a_small_cheat_is_found_by_importance(measurer: Measurer, honest: Measurement) -> None:
    """The honest model with the answer at 1 % of the positions: one probe in a hundred if drawn uniformly."""
    inputs = measurer.facts.rows[:, :-1]
    shares = np.bincount(inputs.reshape(-1), minlength=VOCABULARY) / inputs.size
    token = int(np.abs(shares - 0.01).argmin())  # which token that is depends on the text this Python brings
    assert 0.005 < shares[token] < 0.02
    cheat = with_logits(f"mx.where(x[..., None] == {token}, {PEEK}, z)")
    result = measure(measurer, cheat, reference=honest.reference)
    assert [finding.failure for finding in result.findings] == [Failure.NON_CAUSAL]
    assert result.probes is not None
    assert result.probes.gain_bound is not None


def test_graphs_are_kept_until_discarded(measurer: Measurer) -> None:
    result = measure(measurer, HONEST)
    assert result.graph is not None
    assert result.graph.stat().st_mode & 0o077 == 0
    measurer.discard(result)
    assert not result.graph.exists()
    measurer.discard(result)


class Broken:
    """A machine whose sandbox does not start."""

    name = "broken"

    def start(self, *_: object, **__: object) -> Job:
        raise EnvironmentNotReady("The sandbox does not start.", "Repair it.")


def test_facts_are_kept_and_the_hosts_failures_are_its_own(
    measurer: Measurer, honest: Measurement, project: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    make(sandbox, project, tmp_path, smoke(), POLICY)
    broken = make(Broken(), project, tmp_path, smoke(), POLICY)  # needs no sandbox: the facts are there
    assert broken.facts.rows_sha256 == measurer.facts.rows_sha256
    assert broken.facts.token_bytes_sha256 == measurer.facts.token_bytes_sha256
    assert [f.failure for f in measure(broken, HONEST).findings] == [Failure.HOST]
    assert honest.graph is not None
    assert [f.failure for f in broken.score(honest.graph, [ScoringText(broken.facts.rows)])[0].findings] == [
        Failure.HOST
    ]
    with pytest.raises(EnvironmentNotReady):
        make(sandbox, tmp_path, tmp_path, smoke(), POLICY)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b"def get_token_bytes", b"def other_token_bytes", "no get_token_bytes"),
        (b"return nats / (math.log(2) * count)", b"return nats / (math.log(2) * count) / 2", "formula"),
        (b"rows = EVAL_TOKENS // MAX_SEQ_LEN", b"rows = 3", "3 rows"),
        (b'reduction="none")', b'reduction="mean")', "does not call"),
    ],
)
def test_a_harness_of_another_kind_is_not_supported(
    old: bytes, new: bytes, problem: str, project: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    snapshot = smoke()
    assert old in snapshot["prepare.py"]
    snapshot["prepare.py"] = snapshot["prepare.py"].replace(old, new)
    other = make(sandbox, project, tmp_path, snapshot, POLICY)
    assert not supports(other.facts)
    assert problem in other.facts.problem
    with pytest.raises(TrainerError, match="own output"):
        other.measure(snapshot, grace=1)


def test_a_snapshot_without_a_harness_is_not_supported(project: Path, tmp_path: Path) -> None:
    snapshot = {name: content for name, content in smoke().items() if name != "prepare.py"}
    assert not supports(make(Broken(), project, tmp_path, snapshot, POLICY).facts)


def test_the_training_view_leaves_out_the_validation_shard() -> None:
    files = [
        *("manifest.json", "tokenizer/tokenizer.json", "data/shard_00000.parquet", "data/shard_06542.parquet"),
        *("tokens/shard_06542.tokens", "tokens/shard_06542.offsets", "tokens/shard_00001.tokens"),
        *("data/shard_06542.parquet.part", "copy_of_shard_06542/a", ".lock", ".old/shard_00000.parquet"),
    ]
    assert training_view(files, "shard_06542.parquet") == [
        *("data/shard_00000.parquet", "manifest.json", "tokenizer/tokenizer.json", "tokens/shard_00001.tokens")
    ]


@pytest.mark.parametrize(
    ("argv", "cwd", "path"),
    [
        (["python", "train.py"], ".", "prepare.py"),
        (["python", "train.py"], "sub", "sub/prepare.py"),
        (["python", "src/train.py", "-x"], ".", "src/prepare.py"),
    ],
)
def test_the_harness_lies_beside_the_script(argv: list[str], cwd: str, path: str) -> None:
    assert harness_path(argv, cwd) == path


def test_rows_are_read_strictly() -> None:
    good = np.arange(6, dtype="<i4").tobytes()
    assert token_rows(good, 2, 2, 6).tolist() == [[0, 1, 2], [3, 4, 5]]
    for data, vocabulary in ((good[:-1], 6), (good + b"\0", 6), (good, 5), (np.full(6, -1, "<i4").tobytes(), 6)):
        with pytest.raises(ValueError, match=r"int32|vocabulary"):
            token_rows(data, 2, 2, vocabulary)


# --- the arithmetic ---


def test_bits_per_byte() -> None:
    table = np.array([0, 1, 3])
    losses, targets = np.array([[math.log(2), 100.0], [2 * math.log(2), 5.0]]), np.array([[1, 0], [2, 0]])
    assert bits_per_byte(losses, targets, table) == pytest.approx(3 / 4)
    assert math.isnan(bits_per_byte([1.0], [0], table))


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=8), st.floats(-1e6, 1e6))
def test_cross_entropy_is_normalised_and_free_of_offsets(logits: list[float], offset: float) -> None:
    z = np.array([logits] * len(logits), np.float64)
    nats = scoring.cross_entropy(z, range(len(logits)))
    assert np.exp(-nats).sum() == pytest.approx(1)
    assert scoring.cross_entropy(z + offset, range(len(logits))) == pytest.approx(nats, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=40), st.integers(1, 60), st.integers(0, 2**32))
def test_inclusion_and_pivotal_draw_the_count(weights: list[float], count: int, seed: int) -> None:
    given_weights = np.array(weights)
    given_weights[given_weights < 1e-6] = 0
    chance = scoring.inclusion(given_weights, count)
    expected = min(count, int(np.count_nonzero(given_weights)))
    assert chance.sum() == pytest.approx(expected)
    assert ((chance >= 0) & (chance <= 1 + 1e-9) & ((chance > 0) == (given_weights > 0))).all()
    chosen = scoring.pivotal(chance, np.random.default_rng(seed))
    assert len(chosen) == len(set(chosen.tolist())) == expected
    assert given_weights[chosen].all()


def test_pivotal_keeps_the_chances() -> None:
    chance = np.array([0.9, 0.5, 0.3, 0.2, 1.0, 0.1, 0.0])
    random = np.random.default_rng(1)
    hits = np.zeros(7)
    for _ in range(20_000):
        hits[scoring.pivotal(chance, random)] += 1
    assert hits / 20_000 == pytest.approx(chance, abs=0.015)


@pytest.mark.parametrize("honest_gain", [0.0, 0.01, 0.05])
def test_256_probes_find_an_undeserved_gain_of_a_thousandth(honest_gain: float) -> None:
    """A candidate about as good as the incumbent, with 0.1 % of the incumbent's total taken in the cheapest ways."""
    random = np.random.default_rng(5)
    shape = (768, 256)
    scored = random.random(shape) > 0.05
    incumbent = random.gamma(1.2, 2.6, shape).astype(np.float32)
    true = np.maximum(0.001, incumbent * (1 - honest_gain) + 0.15 * random.standard_normal(shape)).astype(np.float32)
    undeserved = 1e-3 * incumbent[scored].sum(dtype=np.float64)
    flat = np.flatnonzero(scored)
    for ways in (random.permutation(flat), flat[np.argsort(-incumbent.reshape(-1)[flat])]):
        gains = np.cumsum(true.reshape(-1)[ways] * 0.8)  # what is claimed there is a fifth of the truth
        cheated = ways[: int(np.searchsorted(gains, undeserved)) + 1]
        claimed = true.reshape(-1).copy()
        claimed[cheated] *= 0.2
        lies = np.zeros(claimed.shape, bool)
        lies[cheated] = True
        found = 0
        for _ in range(60):
            drawn = scoring.draw(claimed.reshape(shape), incumbent, scored, 256, random)
            assert len(np.unique(drawn.positions[:, 0])) == len(drawn.positions) == 256
            assert scored[tuple(drawn.positions.T)].all()
            found += bool(lies.reshape(shape)[tuple(drawn.positions.T)].any())
        assert found >= 54  # 95 % of 60, less two standard deviations
        assert drawn.gain_bound is not None
        assert drawn.gain_bound <= undeserved * 1.5


def test_without_an_incumbent_the_draw_is_uniform_over_what_counts() -> None:
    scored = np.zeros((10, 6), bool)
    scored[2:, 1:3] = True
    drawn = scoring.draw(np.ones((10, 6), np.float32), None, scored, 256, np.random.default_rng(0))
    assert sorted(drawn.positions[:, 0].tolist()) == list(range(2, 10))
    assert drawn.gain_bound is None
    assert drawn.share_bound == pytest.approx(math.log(20) / 8)


def test_what_a_probe_shows_has_no_future() -> None:
    rows = np.arange(40, dtype=np.int32).reshape(4, 10)
    positions = np.array([[3, 0], [1, 8], [2, 4]])
    shown = scoring.conceal(rows, positions, 40, np.random.default_rng(3))
    assert shown.shape == (3, 9)
    for (row, cut), inputs in zip(positions, shown, strict=True):
        assert inputs[: cut + 1].tolist() == rows[row, : cut + 1].tolist()
    assert shown[0, 1:].tolist() != rows[3, 1:9].tolist()
    assert shown.min() >= 0
    assert shown.max() < 40


@pytest.mark.parametrize(
    ("deltas", "agrees"),
    [
        ([0.0, 1e-4, -1e-4], True),
        ([9e-4, -9e-4], True),
        ([9e-4, 9e-4], False),
        ([2e-3, -2e-3], False),
        ([0.0] * 255 + [-3.0], False),
        ([math.nan], False),
    ],
)
def test_probes_are_judged_one_by_one_and_on_average(deltas: list[float], agrees: bool) -> None:
    probes = tuple(Probe(i, 0, 3.0, 3.0 + delta) for i, delta in enumerate(deltas))
    report = ProbeReport(probes, sum(deltas) / len(deltas), max(deltas, key=abs), None, 0.1)
    finding = judge(report, replace(POLICY))
    assert (finding is None) == agrees
    if finding is not None:
        assert finding.failure is Failure.NON_CAUSAL


LOOKS = """
import os
def kept():
    return {name for _, _, names in os.walk(os.path.join(os.environ["TMPDIR"], "mlx")) for name in names}
print("kernels:", len(kept()))
"""
COMPILES = (
    MODEL + "mx.enable_compile()\nf = mx.compile(lambda x: mx.exp(x) * mx.tanh(x) + {})\nmx.eval(f(mx.ones(8)))\n"
)


def kernels_seen(result: Measurement) -> int:
    assert result.findings == ()
    return int(result.log.split("kernels:")[1].split()[0])


def test_the_snapshots_kernels_are_compiled_once_and_a_candidates_are_its_own(
    sandbox: Sandbox, project: Path, tmp_path: Path
) -> None:
    snapshot = smoke() | {"train.py": (COMPILES.format(1) + "evaluate_bpb(model)\n").encode()}
    looks = LOOKS + MODEL + "evaluate_bpb(model)\n"
    cold = make(sandbox, project, tmp_path, snapshot, POLICY)
    assert kernels_seen(measure(cold, looks)) == 0

    assert cold.compile_kernels("a machine") == ""
    warm = make(sandbox, project, tmp_path, snapshot, POLICY)
    assert warm.compile_kernels("a machine") == ""
    candidate = LOOKS + COMPILES.format(2) + LOOKS.replace("kernels:", "then:") + "evaluate_bpb(model)\n"
    found = measure(warm, candidate)
    assert 0 < kernels_seen(found) < int(found.log.split("then:")[1].split()[0])  # it adds its own to the snapshot's
    assert kernels_seen(measure(warm, looks)) == kernels_seen(found)  # and nobody sees them after it

    other = make(sandbox, project, tmp_path, smoke() | {"train.py": b"import sys; sys.exit(3)"}, POLICY)
    said: list[str] = []
    assert other.compile_kernels("a machine", said.append).startswith("crash: exit status 3")
    assert other.compile_kernels("a machine", said.append) == ""  # that is found out, and said, once
    assert len(said) == 1
    plain = make(sandbox, project, tmp_path, smoke(), POLICY)
    assert plain.compile_kernels("a machine").startswith("nothing was compiled")
    assert len([path for path in (tmp_path / "kernels").iterdir() if path.is_dir()]) == 1
