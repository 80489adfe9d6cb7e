"""A validator program on this machine as the local network: found, started, waited for, stopped.

`solana-test-validator` of the Solana tools, or `surfpool`, which speaks the same RPC. Rules:

- It runs in a folder of its own with an environment of its own, so it reads no wallet or configuration of the user's.
- A folder has one validator at a time. The lock is held by the validator itself as well, so one that outlived a
  killed parent is found and named.
- A ledger is only continued as it was created (which program, from where), as `origin.json` records.
- The validator listens on 127.0.0.1 only. It is stopped by SIGTERM, after `PATIENCE` seconds by SIGKILL, with all of
  its process group, and is in a session of its own, so that Ctrl-C reaches it through us alone.

Facts: the programs' own options. The validator ignores what makes a genesis where a ledger exists. Surfpool keeps
its ledger in memory and takes a program through its `surfnet_writeProgram`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from solders.pubkey import Pubkey

from chain.errors import ChainError, InvalidData, NetworkUnreachable, NotFound
from common.closing import Closing
from common.files import lock, write_atomic
from common.text import printable

if TYPE_CHECKING:
    from common.http import HttpClient

METAPLEX: Final = Pubkey.from_string("metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s")
PORTS: Final = 4  # in a row: RPC, websocket, faucet, gossip
LEDGER_SHREDS: Final = 1_500_000  # 1.8 GB, a quarter of an hour of blocks; what is older is forgotten, but no account
PATIENCE: Final = 15.0  # seconds between SIGTERM and SIGKILL
_LOOK_SECONDS: Final = 0.2
_REPLY_SECONDS: Final = 3.0
_TAIL: Final = 8 * 1024  # bytes of a log that are looked at
_CURES: Final = {
    "validator": "Install the Solana tools (https://solana.com/docs/intro/installation), or set its path in",
    "surfpool": "Install Surfpool (https://docs.surfpool.run), or set its path in",
}

Say = Callable[[str], None]


class Kind(StrEnum):
    """Which program."""

    VALIDATOR = "validator"
    SURFPOOL = "surfpool"

    @property
    def program(self) -> str:
        """The executable's name."""
        return "solana-test-validator" if self is Kind.VALIDATOR else "surfpool"

    @property
    def variable(self) -> str:
        """The environment variable that names the executable."""
        return self.program.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start: `folder` is its own, `clone_from` an RPC URL, empty for the program in `image` at `program_id`."""

    kind: Kind
    folder: Path
    port: int
    program_id: Pubkey
    image: bytes
    clone_from: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def image_file(self) -> Path:
        return self.folder / "openresearch.so"

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    def origin(self) -> dict[str, str]:
        """What the ledger is begun as."""
        program = self.clone_from or sha256(self.image).hexdigest()
        return {"kind": self.kind.value, "programId": str(self.program_id), "program": program}


def find(kind: Kind, environment: Mapping[str, str] = os.environ) -> Path:
    """The executable: the one its variable names, else the one on PATH. NotFound."""
    given = environment.get(kind.variable)
    found = shutil.which(given or kind.program, path=environment.get("PATH"))
    if found is None:
        where = f"{kind.variable}={given}" if given else "PATH"
        raise NotFound(f"{kind.program} is not installed ({where}).", f"{_CURES[kind]} {kind.variable}.")
    return Path(found).absolute()


def arguments(plan: Plan) -> list[str]:
    """The program's arguments for a plan."""
    port = plan.port
    if plan.kind is Kind.SURFPOOL:
        ports = ["--host", "127.0.0.1", "--port", str(port), "--ws-port", str(port + 1)]
        source = ["--rpc-url", plan.clone_from] if plan.clone_from else ["--offline"]
        return ["start", *ports, "--no-tui", "--no-studio", "--no-deploy", *source]
    given = ["--ledger", str(plan.ledger), "--quiet", "--bind-address", "127.0.0.1"]
    given += ["--rpc-port", str(port), "--faucet-port", str(port + 2), "--gossip-port", str(port + 3)]
    given += ["--limit-ledger-size", str(LEDGER_SHREDS)]
    if not plan.clone_from:
        return [*given, "--bpf-program", str(plan.program_id), str(plan.image_file)]
    cloned = [str(plan.program_id), str(METAPLEX)]
    return [
        *given,
        "--url",
        plan.clone_from,
        *(part for key in cloned for part in ("--clone-upgradeable-program", key)),
    ]


def variables(outer: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The program's whole environment: its home is `folder`."""
    passed = ("PATH", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY")
    ours = {"HOME": str(folder), "NO_DNA": "1", "RUST_LOG": "warn"}  # its log would grow by 10 MB a minute
    return {name: outer[name] for name in passed if name in outer} | ours


def free_port() -> int:
    """The first of PORTS free ports in a row."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port + PORTS <= 65536 and _taken(port) is None:
            return port
    raise ChainError("No consecutive free ports on 127.0.0.1.", "Choose one with --port.")


def _taken(port: int) -> int | None:
    """The first of PORTS ports from `port` on that cannot be listened on."""
    for number in range(port, port + PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except (OSError, OverflowError):
                return number
    return None


class Validator(Closing):
    """A started validator; a context manager that stops it. `seconds` from its start to `wait`'s end.

    One that goes on with a ledger may hang before its first block where it was stopped at a bad moment; it is started
    once more then. The ledger is not touched.
    """

    def __init__(self, executable: Path, plan: Plan, *, reset: bool = False, patience: float = PATIENCE) -> None:
        """Start it and return at once. `reset` begins a new ledger. ChainError if that cannot be."""
        self.plan, self._executable, self._patience = plan, executable, patience
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(plan.folder)
        try:
            if taken := _taken(plan.port):
                raise ChainError(
                    f"Port {taken} on 127.0.0.1 is in use; the {plan.kind.program} needs {PORTS} from {plan.port} on.",
                    "Stop the program that uses it, or choose another port with --port.",
                )
            _begin(plan, reset)
            self._resumed = plan.kind is Kind.VALIDATOR and plan.ledger.exists()
            self._started = time.monotonic()
            self.seconds: float | None = None
            self._start()
        except BaseException as error:
            if hasattr(self, "process"):
                self.stop()
            self._unlock()
            if isinstance(error, OSError):
                raise ChainError(f"Cannot start {executable}: {error.strerror}.", "Check that file.") from None
            raise

    def _start(self) -> None:
        with self.plan.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(self._executable), *arguments(self.plan)],
                cwd=self.plan.folder,
                env=variables(os.environ, self.plan.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        write_atomic(_lock_file(self.plan.folder).with_suffix(".pid"), str(self.process.pid).encode())

    def wait(self, seconds: float, say: Say = lambda _: None) -> None:
        """Return once it answers and makes blocks, within so many seconds, a second start included.

        NetworkUnreachable if it ends or that takes too long.
        """
        from common.http import HttpClient

        deadline = self._started + seconds
        again = self._started + seconds / 2 if self._resumed else deadline
        with HttpClient(unreachable=NetworkUnreachable, unusable=InvalidData, limit=_REPLY_SECONDS) as client:
            while True:
                self.check()
                word = _health(client, self.plan.url)
                if word == "ok":
                    break
                waited = time.monotonic() - self._started
                if time.monotonic() > deadline:
                    raise NetworkUnreachable(
                        f"{self.plan.kind.program} was not ready after {seconds:.0f} s: {word}.",
                        f"Its words are in {self.plan.log}; give it longer with --wait"
                        f"{', or begin a new ledger with --reset' if self._resumed else ''}.",
                    )
                if time.monotonic() > again:
                    again = deadline
                    say(f"{self.plan.kind.program} made no block on its old ledger ({word}); starting it once more")
                    self._end()
                    self._start()
                say(f"waiting for {self.plan.kind.program}, {waited:.0f} of at most {seconds:.0f} s: {word}")
                time.sleep(_LOOK_SECONDS)
            if self.plan.kind is Kind.SURFPOOL and not self.plan.clone_from:
                _write_program(client, self.plan)
        self.seconds = time.monotonic() - self._started

    def check(self) -> None:
        """NetworkUnreachable if it has ended by itself."""
        code = self.process.poll()
        if code is not None:
            raise NetworkUnreachable(
                f"{self.plan.kind.program} exited with status {code}: {last_words(self.plan)}",
                f"See its log in {self.plan.log}.",
            )

    def stop(self) -> bool:
        """Stop it with all it started; whether it went when asked. Stopping twice is harmless."""
        asked = self._end()
        self._unlock()
        return asked

    def close(self) -> None:
        self.stop()

    def _end(self) -> bool:
        asked = self.process.poll() is not None
        if not asked:
            _signal(self.process.pid, signal.SIGTERM)
            # Whoever presses Ctrl-C again does not want to wait.
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self.process.wait(self._patience)
                asked = True
        _signal(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return asked

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _begin(plan: Plan, reset: bool) -> None:
    """Make the folder ready, anew if that was asked for; ChainError if its ledger is of another origin."""
    note = plan.folder / "origin.json"
    if reset:
        shutil.rmtree(plan.ledger, ignore_errors=True)
        shutil.rmtree(plan.folder / "irys", ignore_errors=True)
        note.unlink(missing_ok=True)
    if plan.ledger.exists():
        try:
            found = json.loads(note.read_bytes())
        except (OSError, ValueError, RecursionError):
            found = None
        if found != plan.origin():
            raise ChainError(
                f"The ledger in {plan.ledger} was created with another program.", "Start a new one with --reset."
            )
    write_atomic(plan.image_file, plan.image)
    write_atomic(note, json.dumps(plan.origin(), indent=2).encode())


def _locked(folder: Path) -> int:
    """A locked descriptor that keeps other validators out of the folder."""
    path = _lock_file(folder)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if lock(descriptor):
            return descriptor
    except OSError as error:
        os.close(descriptor)
        raise ChainError(f"Cannot lock {path}: {error.strerror}.", "Choose another --home.") from None
    os.close(descriptor)
    process = ""
    with contextlib.suppress(OSError, ValueError):
        process = f", process {path.with_suffix('.pid').read_text()[:20]}"
    raise ChainError(f"A validator is already running in {folder}{process}.", "Stop it first.")


def _lock_file(folder: Path) -> Path:
    return folder / "validator.lock"


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _ask(client: HttpClient, url: str, method: str, parameters: list[Any]) -> Any:
    """A JSON-RPC result; ValueError if there is none."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    try:
        reply = client.call("POST", url, json.dumps(request).encode(), headers={"Content-Type": "application/json"})
        document = json.loads(reply.body)
    except ChainError as error:
        raise ValueError(error.problem.rstrip(".")) from None
    except RecursionError:
        raise ValueError("it answers something that is not JSON-RPC") from None
    if not isinstance(document, dict) or "result" not in document:
        problem = document.get("error") if isinstance(document, dict) else document
        words = problem.get("message") if isinstance(problem, dict) else problem
        raise ValueError(printable(str(words)))
    return document["result"]


def _health(client: HttpClient, url: str) -> str:
    """ "ok" once the node says so and has confirmed a block of its own; else why not.

    In its first block no program can be called. One that goes on with a ledger answers while it still replays it, and
    shows the state of an old block, a final one, as confirmed.
    """
    try:
        health = _ask(client, url, "getHealth", [])
        # In this order: both move on while it replays.
        confirmed, final = (_ask(client, url, "getSlot", [{"commitment": name}]) for name in ("confirmed", "finalized"))
    except ValueError as error:
        return str(error)
    if health != "ok":
        return f"its health is {str(health)[:100]!r}"
    if isinstance(confirmed, int) and isinstance(final, int) and confirmed > final:
        return "ok"
    return f"no new block is confirmed, the last is {str(confirmed)[:100]}"


def _write_program(client: HttpClient, plan: Plan) -> None:
    try:
        _ask(client, plan.url, "surfnet_writeProgram", [str(plan.program_id), plan.image.hex(), 0])
    except ValueError as error:
        raise ChainError(f"Surfpool did not take the program: {error}.", f"See its log in {plan.log}.") from None


def last_words(plan: Plan) -> str:
    """The last line that the program wrote, or its log's last error."""
    for path in (plan.log, plan.ledger / "validator.log"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = [line.strip() for line in file.read(_TAIL).decode(errors="replace").splitlines() if line.strip()]
            if told := _telling(lines):
                return printable(told, 300)
    return "no output"


def _telling(lines: list[str]) -> str:
    """The line that says why a program ended: what its last panic says, else the last line that is no notice."""
    for at in reversed(range(len(lines) - 1)):
        if "panicked at" in lines[at]:
            return lines[at + 1]
    return next((line for line in reversed(lines) if not line.startswith("Notice!")), "")
