"""An unlocked key stays in the process that signs: what a candidate's process sees of it, plain and sandboxed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from solders.keypair import Keypair

from chain.wallet import wallet
from chain.wallet.passphrase import Source
from tests.support import require
from trainer import sandbox
from trainer.machine.environment import Environment
from trainer.project import protocol
from trainer.running.experiment import Ok, RunLimits, run_experiment

ROOT = Path(__file__).parents[2]
PROTOCOL = protocol.parse((ROOT / "configs" / "armlx" / "protocol.json").read_bytes())
SECRET = "correct horse battery staple"

# Tells all that it can see: its own and its ancestors' environment and command line, what its descriptors lead to
# and hold, and every file below the home.
SPY = """
import base64, json, os, sys

def read(path):
    try:
        with open(path, "rb", buffering=0) as file:
            return base64.b64encode(file.read(100_000)).decode()
    except OSError:
        return None

found = {"env": dict(os.environ), "argv": sys.argv[:1], "fds": {}, "processes": {}, "files": {}}
for name in os.listdir("/dev/fd"):
    path = "/dev/fd/" + name
    try:
        os.set_blocking(int(name), False)
        found["fds"][name] = [os.readlink(path), None]
        found["fds"][name][1] = base64.b64encode(os.read(int(name), 100_000)).decode()
    except OSError:
        pass
pid = os.getpid()
for _ in range(10):
    try:
        with open(f"/proc/{pid}/stat") as file:
            parent = int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        break
    found["processes"][pid] = [read(f"/proc/{pid}/environ"), read(f"/proc/{pid}/cmdline")]
    pid = parent
for folder, _, names in os.walk(HOME):
    for name in names:
        found["files"][os.path.join(folder, name)] = read(os.path.join(folder, name))
print("SEEN " + json.dumps(found), flush=True)
"""


@dataclass(frozen=True)
class Parent:
    """A process of ours (this one) that holds an unlocked key."""

    home: Path
    key: Keypair

    @property
    def spy(self) -> str:
        return f"HOME = {str(self.home)!r}\n{SPY}"

    def leaks(self, output: bytes) -> set[str]:
        """Which forms of the key or the passphrase are in what the spy tells, decoded."""
        (line,) = (line for line in output.splitlines() if line.startswith(b"SEEN "))
        seen = json.loads(line[5:])
        assert seen["env"]
        assert seen["processes"] or sys.platform != "linux"
        haystack = json.dumps(seen).encode()
        for process in seen["processes"].values():
            haystack += b"".join(base64.b64decode(part) for part in process if part)
        haystack += b"".join(base64.b64decode(part) for part in seen["files"].values() if part)
        haystack += b"".join(base64.b64decode(part) for _, part in seen["fds"].values() if part)
        secret = self.key.secret()
        forms = {
            "bytes": secret,
            "list": ",".join(map(str, secret)).encode(),
            "hex": secret.hex().encode(),
            "base58": str(self.key).encode(),
            "passphrase": SECRET.encode(),
        }
        return {name for name, form in forms.items() if form in haystack}

    def files(self, output: bytes) -> set[str]:
        """Files below the home that the spy could read, by their name."""
        (line,) = (line for line in output.splitlines() if line.startswith(b"SEEN "))
        return {Path(name).name for name, data in json.loads(line[5:])["files"].items() if data is not None}


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    """The passphrase's file is gone when the candidate runs, as where it came from a prompt or the keychain."""
    home, file = tmp_path / "home", tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    made = wallet.new(home, "miner", SECRET.encode())
    key = wallet.load(wallet.locate(home, "miner"), Source(file))
    assert key == made
    file.unlink()
    yield Parent(home, key)
    assert key.sign_message(b"x").verify(made.pubkey(), b"x")  # held all the while


def run_plain(parent: Parent, tmp_path: Path) -> bytes:
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    script = parent.spy + "print('---')\nprint('val_bpb:          1.500000')\n"
    found = run_experiment(
        {"train.py": script.encode(), "prepare.py": b""},
        PROTOCOL,
        Environment.running(),
        cache=cache,
        scratch=tmp_path / "scratch",
        limits=RunLimits(wall_seconds=60),
    )
    assert isinstance(found, Ok), found
    return found.log.data


def run_sandboxed(parent: Parent) -> bytes:
    require(sys.platform == "linux", "Linux (the macOS sandbox is probed at start)")
    require(shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    limits = sandbox.JobLimits(wall_seconds=60, memory_bytes=1 << 30, output_bytes=1 << 20)
    tools = sandbox.interpreter_prefixes(Path(sys.executable))
    with sandbox.choose().start([sys.executable, "-c", parent.spy], limits=limits, tools=tools) as job:
        outcome = job.wait()
    assert (outcome.kind, outcome.exit_code) == ("exited", 0), outcome
    return outcome.output


def test_a_plain_run_sees_neither_key_nor_passphrase(parent: Parent, tmp_path: Path) -> None:
    output = run_plain(parent, tmp_path)
    assert parent.leaks(output) == set()
    assert parent.files(output) == {"miner.json"}  # the encrypted one, of no use


def test_a_plain_run_is_the_same_user_and_reads_plain_wallets(parent: Parent, tmp_path: Path) -> None:
    wallet.save(wallet.path_of(parent.home, "plain"), parent.key)
    assert parent.leaks(run_plain(parent, tmp_path)) == {"list"}  # the limit of it, and the proof that the spy spies


def test_a_sandboxed_run_sees_no_file_either(parent: Parent) -> None:
    wallet.save(wallet.path_of(parent.home, "plain"), parent.key)
    (parent.home / "secret").write_text(SECRET)
    output = run_sandboxed(parent)
    assert parent.leaks(output) == set()
    assert parent.files(output) == set()


def test_what_is_in_the_environment_of_the_parent_is_not_passed_on(
    parent: Parent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WALLET_PASSPHRASE", SECRET)  # somebody's own mistake
    descriptor = os.open(wallet.path_of(parent.home, "miner"), os.O_RDONLY)
    try:
        for output in (run_plain(parent, tmp_path), run_sandboxed(parent)):
            (line,) = (line for line in output.splitlines() if line.startswith(b"SEEN "))
            seen = json.loads(line[5:])
            assert SECRET not in json.dumps(seen["env"])
            assert not [target for target, _ in seen["fds"].values() if target.endswith("miner.json")]
    finally:
        os.close(descriptor)
