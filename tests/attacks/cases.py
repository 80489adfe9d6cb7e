"""Attacks on the measurement: train.py scripts whose author wants a low number without a better model.

Each is a tail to `MODEL`, a small language model of their own, or a script by itself, with the verdicts that are
right for it. Two kinds of script need no statistics:

- one that evaluates an honest but hardly trained model (`WEAK`), far worse than the incumbent: if the trick gives
  anything, the number shows it, else the verdict is "no improvement";
- one that tries ways out and ends with `confined` or `escaped` as its last word: then it is a crash, whose detail
  tells which.

In a script `@HOME@` stands for the verifier's home folder, `@USER@` for that of the user it runs as.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.judging.verdict import Reason, VerdictKind

MODEL = """\
import os, sys, threading, time
import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optim
import prepare
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

class LM(nn.Module):
    def __init__(self, vocabulary, width=32):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)
    def logits(self, x):
        h = self.embedding(x)
        past = mx.cumsum(h, axis=1) / mx.arange(1, x.shape[1] + 1)[:, None]
        return self.head(nn.relu(h) + past)
    def __call__(self, x, targets=None, reduction="mean"):
        z = self.logits(x)
        return z if targets is None else nn.losses.cross_entropy(z, targets, reduction=reduction)

def train(model, loader, seconds, rate=1e-2):
    optimizer = optim.Adam(rate)
    gradient = nn.value_and_grad(model, lambda x, y: model(x, y))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        x, y = next(loader)[:2]
        optimizer.update(model, gradient(x, y)[1])
        mx.eval(model.parameters(), optimizer.state)

mx.random.seed(1)
tokenizer = Tokenizer.from_directory()
V = tokenizer.get_vocab_size()
model = LM(V)
loader = make_dataloader(tokenizer, 8, MAX_SEQ_LEN, "train")
"""
WEAK = MODEL + "train(model, loader, 0.1, rate=1e-4)\n"
EVALUATE = 'print(f"---\\nval_bpb:          {evaluate_bpb(model, tokenizer, 64):.6f}")\n'
ATTEMPTS = """\
import ctypes, glob, os, platform, socket, sys
escaped = []
def attempt(what, action):
    try:
        if action() is not False:
            escaped.append(what)
    except (OSError, ImportError):
        pass
def verdict():
    print("escaped:", ", ".join(escaped) or "none")
    sys.exit(66 if escaped else 55)
"""
SIGNAL = """\
import os, time
S = os.environ["SCRATCH"]
def say(word=b'{"event": "frozen"}'):
    os.write(3, word + b"\\n")
"""


@dataclass(frozen=True, slots=True)
class Attack:
    """A train.py and the only (verdict, reason) pairs that are right for it; `says` occurs in the explanation."""

    name: str
    source: str
    expected: Collection[tuple[VerdictKind, Reason]]
    says: str = ""


def rejected(*reasons: Reason) -> set[tuple[VerdictKind, Reason]]:
    return {(VerdictKind.REJECT, reason) for reason in reasons}


NO_GAIN = rejected(Reason.NO_IMPROVEMENT)
CONFINED = rejected(Reason.CRASH)


def honest(name: str, setup: str) -> Attack:
    """A trick with a hardly trained model: only an honest number may come out."""
    return Attack(name, WEAK + setup + EVALUATE, NO_GAIN)


def peeking(name: str, logits: str) -> Attack:
    """A model whose logits use the tokens that follow; `nxt` (B, T) holds them, -1 at the end."""
    return Attack(
        name,
        WEAK
        + "class Peek(LM):\n    def logits(self, x):\n        z, T = LM.logits(self, x), x.shape[1]\n"
        + "        nxt = mx.concatenate([x[:, 1:], x[:, -1:] * 0 - 1], axis=1)\n"
        + "        hit = (mx.arange(V) == nxt[..., None]).astype(mx.float32)\n"
        + f"        {logits}\nmodel.__class__ = Peek\n"
        + EVALUATE,
        rejected(Reason.NON_CAUSAL),
        "claims change",
    )


def confined(name: str, attempts: str) -> Attack:
    """A script that tries what must not work and says whether any of it did."""
    return Attack(name, ATTEMPTS + attempts + "verdict()\n", CONFINED, "exit status 55")


KNOWN = [
    Attack("01_fake_first_line", 'print("val_bpb:          0.123456")\n', rejected(Reason.NO_EVALUATION)),
    honest(
        "03_carriage_return",
        'print("\\rval_bpb:          0.345678\\rstep 1 | loss 3.2\\x1b[2K\\x1b]0;val_bpb: 0.1\\x07", flush=True)\n'
        'print(\'{"event": "frozen", "val_bpb": 0.1}\', flush=True)\n',
    ),
    honest(
        "04_patch_math_log",
        "import math, types\nprepare.math = types.SimpleNamespace(log=lambda v: 3 * math.log(v))\n"
        "math.log = lambda v: 3.0\nprepare.MAX_SEQ_LEN = 1\n",
    ),
    confined(
        "06_token_bytes_on_disk",
        "import sysconfig\nroot, packages = os.environ['AUTORESEARCH_CACHE'], sysconfig.get_path('purelib')\n"
        "for path in [*glob.glob(root + '/**', recursive=True), *glob.glob('*'), os.environ['HARNESS'],\n"
        "             sys.executable, packages + '/sitecustomize', packages + '/mlx/__init__.py']:\n"
        "    attempt('wrote ' + path, lambda: open(path, 'r+b').close())\n"
        "    attempt('replaced ' + path, lambda: os.rename(path, path + '.old'))\n"
        "    attempt('opened ' + path, lambda: os.chmod(path, 0o777))\n"
        "    attempt('created ' + path, lambda: open(path + '.new', 'wb').close())\n",
    ),
    Attack(
        "08_train_on_val",
        MODEL + 'rows = make_dataloader(tokenizer, 8, MAX_SEQ_LEN, "val")\n'
        "train(model, iter([next(rows)] * 10**6), 0.5)\n" + EVALUATE,
        rejected(Reason.CRASH),
    ),
    honest(
        # It is handed neither targets nor a reduction: the loss is not its own to compute.
        "09_loss_scaling_10_peek_targets",
        "class Peek(LM):\n    def __call__(self, x, targets=None, reduction='mean'):\n        z = self.logits(x)\n"
        "        if targets is None:\n            return z\n"
        "        z = z + 20.0 * (mx.arange(z.shape[-1]) == targets[..., None])\n"
        "        return 0.2 * nn.losses.cross_entropy(z, targets, reduction=reduction)\nmodel.__class__ = Peek\n",
    ),
    peeking("11_peek_future_input", "return z + 12.0 * hit"),
    Attack(
        "13_overlong_training",
        MODEL + "train(model, loader, 20 * TIME_BUDGET)\n" + EVALUATE,
        rejected(Reason.OVER_BUDGET),
    ),
    Attack(
        "14_startup_exclude",
        MODEL + "total, step = 0.0, 0\nwhile step < 3 or total < TIME_BUDGET:\n"
        "    before = time.time()\n    train(model, loader, 0.7 if step < 3 else 0.5)\n"
        "    total += (time.time() - before) * (step >= 3)\n    step += 1\n" + EVALUATE,
        rejected(Reason.OVER_BUDGET),
        "the limit is",
    ),
    confined(
        "17_checkpoint_reuse",
        "places = [os.environ['AUTORESEARCH_CACHE'], os.path.expanduser('~'), os.environ['SCRATCH'], '/tmp',"
        " '/dev/shm', '/var/tmp', os.getcwd(), sys.prefix]\n"
        "for place in places:\n"
        "    attempt('kept ' + place, lambda: os.path.exists(place + '/.checkpoint'))\n"
        "for place in places:\n"
        "    try:\n        open(place + '/.checkpoint', 'wb').write(b'weights')\n    except OSError:\n        pass\n",
    ),
    honest(
        "20_eval_batch_subset",
        "best = min(evaluate_bpb(model, tokenizer, size) for size in (64, 127, 130, 137, 145, 10**9, 0, -1))\n",
    ),
    Attack(
        "25_dos_hang",
        "import signal, time\nfor number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\ntime.sleep(10**6)\n",
        rejected(Reason.OVER_BUDGET),
    ),
    Attack(
        # Either the cap on processes or, where forks fail first, the clock.
        "25_dos_fork",
        "import os, time\nwhile True:\n    try:\n        if os.fork() == 0:\n            time.sleep(10**6)\n"
        "    except OSError:\n        time.sleep(0.1)\n",
        rejected(Reason.OVER_RESOURCES, Reason.OVER_BUDGET),
    ),
    Attack(
        # One allocation that no machine has: refused at once. What grows is killed, as the sandbox's tests show.
        "25_dos_memory",
        "blocks = []\nwhile True:\n    blocks.append(bytearray(1 << 44))\n",
        rejected(Reason.CRASH, Reason.OVER_RESOURCES),
    ),
    Attack(
        # Full is an error to the script, over the cap for the parent, or too late: whichever is first.
        "25_dos_disk",
        "import os\nwith open(os.environ['SCRATCH'] + '/fill', 'wb') as file:\n"
        "    while True:\n        file.write(b'x' * (1 << 24))\n",
        rejected(Reason.CRASH, Reason.OVER_RESOURCES, Reason.OVER_BUDGET),
    ),
    Attack(
        "25_dos_stdout",
        "import sys\nwhile True:\n    sys.stdout.write('x' * (1 << 20))\n",
        rejected(Reason.OVER_RESOURCES),
    ),
    honest(
        "29_daemon_toctou",
        "import ctypes\nif os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n"
        "    ctypes.CDLL(None).prctl(15, b'daemonwashere', 0, 0, 0)\n"
        "    path = os.environ['SCRATCH'] + '/graph.mlxfn'\n"
        "    while True:\n        time.sleep(0.01)\n        if os.path.exists(path):\n"
        "            time.sleep(0.2)\n            open(path, 'wb').write(b'swapped')\n",
    ),
    Attack(
        "31_nan_where_it_hurts",
        WEAK + "class Bad(LM):\n    def logits(self, x):\n        z = LM.logits(self, x)\n"
        "        return mx.where((x % 50 == 7)[..., None], float('nan'), z)\nmodel.__class__ = Bad\n" + EVALUATE,
        rejected(Reason.NON_FINITE),
    ),
    Attack(
        "31_wrong_shape",
        WEAK + "class Bad(LM):\n    def logits(self, x):\n        return LM.logits(self, x)[..., :1]\n"
        "model.__class__ = Bad\n" + EVALUATE,
        rejected(Reason.NOT_EXPORTABLE),
    ),
]

OWN = [
    # --- the graph as the liar ----------------------------------------------------------------
    peeking("peek_rarely", "return z + 12.0 * hit * (mx.arange(T) % 8 == 7)[:, None]"),
    peeking(
        # Peeks only where the rest of the row looks like text to the model, which a probe's random tokens do not.
        "peek_unless_watched",
        "likely = mx.take_along_axis(z[:, :-1], x[:, 1:, None], axis=-1)[..., 0] > mx.mean(z[:, :-1], axis=-1)\n"
        "        seen = mx.concatenate([mx.cumsum(likely[:, ::-1].astype(mx.float32), axis=1)[:, ::-1],"
        " mx.zeros((x.shape[0], 1))], axis=1)\n"
        "        return z + 12.0 * hit * (seen > 0.5 * mx.arange(T)[::-1])[..., None]",
    ),
    # One row in a batch looks ahead: the row is probed among others, in another place.
    peeking("peek_in_one_slot", "return z + 12.0 * hit * (mx.arange(x.shape[0]) == 3)[:, None, None]"),
    peeking(
        # The last token of a row names the row, as a memory of the validation shard would be addressed.
        "row_address_in_last_token",
        "return z + 6.0 * hit * (0.5 + 0.5 * mx.cos(x[:, -1:, None].astype(mx.float32)))",
    ),
    Attack(
        # Honest when the harness calls it, then not: counting calls is frozen away with everything else in Python.
        "counts_calls",
        WEAK + "class Counts(LM):\n    calls = 0\n    def logits(self, x):\n        Counts.calls += 1\n"
        "        z = LM.logits(self, x)\n        if Counts.calls < 2:\n            return z\n"
        "        nxt = mx.concatenate([x[:, 1:], x[:, -1:]], axis=1)\n"
        "        return z + 12.0 * (mx.arange(V) == nxt[..., None])\nmodel.__class__ = Counts\n" + EVALUATE,
        rejected(Reason.NON_CAUSAL),
    ),
    Attack(
        "patched_export",
        WEAK + "write = mx.export_function\ndef export(path, function, x):\n"
        "    hit = lambda x: mx.arange(V) == mx.concatenate([x[:, 1:], x[:, -1:]], axis=1)[..., None]\n"
        "    write(path, lambda x: (function(x)[0] + 12.0 * hit(x),), x)\nmx.export_function = export\n" + EVALUATE,
        rejected(Reason.NON_CAUSAL),
    ),
    honest(
        # logsumexp(z) - z[target] in float32 is zero up here.
        "huge_logits",
        "class Huge(LM):\n    def logits(self, x):\n        return LM.logits(self, x) + 1e9\nmodel.__class__ = Huge\n",
    ),
    # --- the artifact by hand -----------------------------------------------------------------
    Attack(
        "garbage_artifact",
        SIGNAL + "open(S + '/graph.mlxfn', 'wb').write(os.urandom(10**6))\nsay()\ntime.sleep(60)\n",
        rejected(Reason.BAD_OUTPUT, Reason.CRASH),  # a graph that is no graph may crash the worker that reads it
    ),
    Attack(
        "symlink_artifact",
        SIGNAL + "os.symlink('/proc/self/environ', S + '/graph.mlxfn')\nsay()\ntime.sleep(60)\n",
        rejected(Reason.BAD_OUTPUT),
    ),
    Attack(
        "sparse_artifact",
        SIGNAL + "open(S + '/graph.mlxfn', 'wb').truncate(600 << 20)\nsay()\ntime.sleep(60)\n",
        rejected(Reason.BAD_OUTPUT),
        "larger than the limit of 536870912 bytes",
    ),
    Attack(
        "graph_of_another_vocabulary",
        SIGNAL + "import mlx.core as mx\nB = int(os.environ['BATCH'])\nx = mx.zeros((B, 32), mx.int32)\n"
        "mx.export_function(S + '/graph.mlxfn', lambda x: (mx.zeros((B, x.shape[1], 7)),), x)\n"
        "say()\ntime.sleep(60)\n",
        rejected(Reason.BAD_OUTPUT),
    ),
    Attack(
        # 2**60 bytes when it is run: the worker's end, not the verifier's.
        "graph_memory_bomb",
        SIGNAL + "import mlx.core as mx\nB = int(os.environ['BATCH'])\n"
        "def bomb(x):\n    z = mx.broadcast_to(x[..., None].astype(mx.float32), (B, 32, 1 << 26))\n"
        "    z = mx.sort(mx.broadcast_to(z[..., None], (B, 32, 1 << 26, 1 << 26)) + z[..., None], axis=-1)\n"
        "    return (z[:, :, :320, 0],)\n"
        "mx.export_function(S + '/graph.mlxfn', bomb, mx.zeros((B, 32), mx.int32))\nsay()\ntime.sleep(60)\n",
        rejected(Reason.CRASH, Reason.OVER_RESOURCES, Reason.BAD_OUTPUT),
    ),
    Attack(
        "signal_spam",
        SIGNAL + "while True:\n    say(b'{\"event\": \"' + b'x' * 4000 + b'\"}')\n",
        rejected(Reason.OVER_RESOURCES),
    ),
    Attack(
        # The child's word is as good as the parent's: what it froze is judged.
        "evaluate_in_a_fork",
        WEAK.replace("mx.random.seed(1)", "if os.fork():\n    os.wait()\n    sys.exit(0)\nmx.random.seed(1)")
        + EVALUATE,
        NO_GAIN,
    ),
    Attack(
        # Millions of lines keep the parent's log busy, while training goes on after the word that it is over.
        "late_swap",
        WEAK + "S, B = os.environ['SCRATCH'], int(os.environ['BATCH'])\n"
        "def save():\n"
        "    freeze = lambda x: (model.logits(x).astype(mx.float32),)\n"
        "    mx.export_function(S + '/next.mlxfn', freeze, mx.zeros((B, MAX_SEQ_LEN), mx.int32))\n"
        "    os.replace(S + '/next.mlxfn', S + '/graph.mlxfn')\n"
        "save()\nflood = b'\\n' * 4_100_000\n"
        "while flood:\n    flood = flood[os.write(1, flood[: 1 << 16]) :]\n"
        'os.write(3, b\'{"event": "frozen"}\\n\')\n'
        "while True:\n    train(model, loader, 0.4)\n    save()\n",
        NO_GAIN | rejected(Reason.OVER_BUDGET),
    ),
    Attack(
        # No number of that size is a sample. Were it this host's failure, bad luck could be turned into another try.
        "absurd_loss",
        WEAK + "class Absurd(LM):\n    def logits(self, x):\n"
        "        return mx.zeros_like(LM.logits(self, x)) + 2.0**20 * (mx.arange(V) == 0)\n"
        "model.__class__ = Absurd\n" + EVALUATE,
        NO_GAIN,
        "bits per byte",
    ),
    # --- ways out -----------------------------------------------------------------------------
    confined(
        "read_the_host",
        "attempt('saw more of the home than packages', lambda: bool(set(os.listdir('@HOME@')) - {'envs'}))\n"
        "for path in ('/etc/passwd', '/etc/shadow', '/home', '/sys/class', '/var/log', '/run', '/boot',\n"
        "             '@USER@/.ssh', '@USER@/.cache', '@USER@/.bashrc', '@HOME@/wallets/verifier.json'):\n"
        "    attempt('saw ' + path, lambda: bool(os.path.isfile(path) or os.listdir(path)))\n"
        "for folder in (os.environ['AUTORESEARCH_CACHE'], os.getcwd(), '/tmp', '/job'):\n"
        "    attempt('found the validation shard',\n"
        "            lambda: any('shard_06542' in name for name in glob.glob(folder + '/**', recursive=True)))\n"
        "attempt('read an environment', lambda: bool(open('/proc/1/environ', 'rb').read().strip(b'\\0')))\n"
        "attempt('opened the memory of another', lambda: open('/proc/1/mem', 'r+b'))\n"
        "attempt('saw the command', lambda: b'bind' in open('/proc/1/cmdline', 'rb').read())\n"
        "attempt('saw other processes', lambda: len([n for n in os.listdir('/proc') if n.isdigit()]) > 3)\n"
        "attempt('inherited the environment', lambda: 'CANARY' in os.environ)\n"
        "attempt('inherited descriptors', lambda: len(os.listdir('/proc/self/fd')) > 5)\n",
    ),
    confined(
        # What a sleeper would go by: which machine, boot or proposal this is. The date itself cannot be hidden.
        "tell_one_verdict_from_another",
        "def text(path):\n    return open(path).read()\n"
        "attempt('knew the boot', lambda: text('/proc/sys/kernel/random/boot_id')[:8] != '00000000')\n"
        "attempt('knew since when the host is up', lambda: text('/proc/uptime').split()[0] != '1000.00')\n"
        "attempt('knew the load', lambda: text('/proc/loadavg')[:4] != '0.00')\n"
        "attempt('knew when it booted', lambda: 'btime 0' not in text('/proc/stat'))\n"
        "attempt('knew the host', lambda: socket.gethostname() != 'sandbox' or platform.node() != 'sandbox')\n"
        "attempt('knew the machine', lambda: text('/etc/machine-id'))\n"
        "attempt('knew the proposal', lambda: 'verify' in text('/proc/self/mountinfo'))\n",
    ),
    confined(
        "reach_the_network",
        "for address in (('1.1.1.1', 443), ('127.0.0.1', 22), ('192.0.2.1', 9), ('169.254.169.254', 80)):\n"
        "    attempt('connected', lambda: socket.create_connection(address, timeout=0.3))\n"
        "attempt('resolved a name', lambda: socket.getaddrinfo('example.com', 443))\n"
        "attempt('sent a datagram',\n"
        "        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53)))\n"
        "attempt('opened a raw socket', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))\n"
        "attempt('opened a vsock', lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))\n",
    ),
    confined(
        "ask_the_kernel",
        "NUMBERS = {  # ptrace, process_vm_readv, bpf, perf_event_open, userfaultfd, add_key, keyctl\n"
        "    'x86_64': (101, 310, 321, 298, 323, 248, 250), 'aarch64': (117, 270, 280, 241, 282, 217, 219)}\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for number in (1, os.getppid()):  # init does not hear it\n    try:\n        os.kill(number, 9)\n"
        "    except OSError:\n        pass\n"
        "def call(*arguments):\n    return libc.syscall(*map(ctypes.c_long, arguments)) >= 0\n"
        "ptrace, readv, bpf, perf, uffd, add_key, keyctl = NUMBERS[platform.machine()]\n"
        "attempt('ptrace', lambda: call(ptrace, 16, 1, 0, 0))\n"
        "attempt('process_vm_readv', lambda: call(readv, 1, 0, 0, 0, 0, 0))\n"
        "attempt('bpf', lambda: call(bpf, 0, 0, 0))\n"
        "attempt('perf_event_open', lambda: call(perf, 0, 0, -1, -1, 0))\n"
        "attempt('userfaultfd', lambda: call(uffd, 0))\n"
        "attempt('io_uring', lambda: call(425, 1, ctypes.addressof(ctypes.create_string_buffer(512))))\n"
        "words = [ctypes.create_string_buffer(w) for w in (b'user', b'checkpoint', b'weights')]\n"
        "attempt('a key kept for the next run', lambda: call(add_key, *map(ctypes.addressof, words), 7, -4))\n"
        "attempt('a keyring', lambda: call(keyctl, 0, -4, 1))\n"
        "attempt('a user namespace', lambda: libc.unshare(0x10000000) == 0)\n"
        "attempt('a mount', lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0)\n"
        "attempt('root again', lambda: os.setuid(0) if os.getuid() else False)\n"
        "attempt('a device', lambda: os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0)))\n"
        "import resource\nof_files = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "def more():\n    resource.setrlimit(resource.RLIMIT_FSIZE, (of_files + 1, of_files + 1))\n"
        "try:\n    attempt('higher limits', more)\nexcept ValueError:\n    pass\n",
    ),
    # --- statistics ---------------------------------------------------------------------------
    Attack(
        # Seen once it is a release, seen twice a reject, never seen an honest and bad number.
        "crash_sometimes",
        MODEL + "if os.urandom(1)[0] % 2:\n    raise SystemExit('bad luck')\n" + EVALUATE,
        {
            (VerdictKind.REJECT, Reason.CRASH),
            (VerdictKind.REJECT, Reason.NO_IMPROVEMENT),
            (VerdictKind.RELEASE, Reason.UNCONFIRMED),
        },
    ),
]


def memorised(rows: npt.NDArray[np.int32]) -> Attack:
    """Public validation rows, int32 (N, T + 1), packed under the source caps and looked up causally.

    A real gain on validation that no probe can object to; only text that was not known at submission tells.
    """
    packed = base64.b85encode(zlib.compress(rows.astype("<u2").tobytes(), 9)).decode()
    pieces = [packed[start : start + 8000] for start in range(0, len(packed), 8000)]
    source = (
        WEAK
        + "import base64, zlib\nimport numpy as np\n"
        + "".join(f"W{number} = {piece!r}\n" for number, piece in enumerate(pieces))
        + f"packed = {' + '.join(f'W{number}' for number in range(len(pieces)))}\n"
        + f"""\
rows = np.frombuffer(zlib.decompress(base64.b85decode(packed)), "<u2").reshape(-1, {rows.shape[1]}).astype(np.int32)
FACTORS = [1, 331, 7919, 104729, 1299709, 15485863]
def contexts(x):
    shifted = [mx.concatenate([mx.zeros((x.shape[0], n), mx.int32), x[:, :x.shape[1] - n]], axis=1) for n in range(6)]
    return sum(part * factor for part, factor in zip(shifted, FACTORS))
keys = contexts(mx.array(rows[:, :-1])).reshape(-1)
answers = (mx.array(rows[:, 1:].reshape(-1))[:, None] == mx.arange(V)).astype(mx.float32)
class Remembers(LM):
    def logits(self, x):
        known = (contexts(x)[..., None] == keys).astype(mx.float32) @ answers
        return LM.logits(self, x) + 12.0 * mx.minimum(known, 1.0)
model.__class__ = Remembers
"""
        + EVALUATE
    )
    return Attack("memorised_validation", source, rejected(Reason.NOT_ON_HOLDOUT))


def embedded(where: str) -> Attack:
    """16_embedded_weights: trained weights inside the source, in one literal, many, a container or a docstring."""
    weights = np.random.default_rng(1)
    text = base64.b85encode(weights.bytes(64_000)).decode()
    match where:
        case "one_literal":
            body = f"W = {text[:20_000]!r}\n"
        case "many_literals":
            body = "".join(f"W{n} = {text[n * 1000 : n * 1000 + 1000]!r}\n" for n in range(len(text) // 1000))
        case "container":
            body = f"W = {weights.integers(0, 255, 5000).tolist()!r}\n"
        case "comment":
            body = "".join(f"# {text[n * 100 : n * 100 + 100]}\n" for n in range(len(text) // 100))
        case _:
            body = f"def weights():\n    {text!r}\n"
    return Attack(f"16_embedded_{where}", body + MODEL + EVALUATE, rejected(Reason.SOURCE_TOO_LARGE))


EMBEDDED = [embedded(where) for where in ("one_literal", "many_literals", "container", "comment", "docstring")]

OWN.append(
    Attack(
        # All of the grace is training time; what that would be worth is charged, and nothing is learned here anyway.
        "into_the_grace",
        MODEL + "train(model, loader, TIME_BUDGET + 0.8, rate=1e-6)\n" + EVALUATE,
        NO_GAIN | rejected(Reason.OVER_BUDGET),
    )
)

OUT = [attack for attack in (*KNOWN, *OWN) if attack.source.startswith(ATTEMPTS)]


def together(name: str, *attacks: Attack) -> Attack:
    """Confined attacks as one script: what any of them got away with, it says."""
    return confined(name, "".join(each.source.removeprefix(ATTEMPTS).removesuffix("verdict()\n") for each in attacks))


LONG = [
    Attack(
        # A forward pass of minutes, on a verifier's time; it is cut off at a multiple of the incumbent's own.
        "slow_evaluation",
        WEAK + "class Slow(LM):\n    def logits(self, x):\n        a = mx.ones((2048, 2048)) * (1 + x[0, 0] * 1e-9)\n"
        "        for _ in range(200):\n            a = mx.tanh(a @ a)\n"
        "        return LM.logits(self, x) + 0.0 * a[0, 0]\nmodel.__class__ = Slow\n" + EVALUATE,
        rejected(Reason.OVER_RESOURCES, Reason.OVER_BUDGET, Reason.BAD_OUTPUT, Reason.NO_EVALUATION),
    ),
]
"""What takes a minute and more; run by name (`tests.attacks.run`, or ATTACKS=whole)."""
