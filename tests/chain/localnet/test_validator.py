"""A validator beside us: its command line as tables, its life with real processes, and the real one where it exists."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain.commands.main import main
from chain.errors import ChainError, NetworkUnreachable, NotFound
from chain.localnet.validator import (
    METAPLEX,
    PORTS,
    Kind,
    Plan,
    Validator,
    arguments,
    find,
    free_port,
    last_words,
    variables,
)
from chain.network.rpc import RpcNetwork
from chain.program import PROGRAM_ID, image
from chain.program.addresses import Pdas
from tests import local
from tests.chain import standin
from tests.support import is_alive, optional

DEVNET = "https://api.devnet.solana.com"
FOLDER = Path("/home/x/validator")
ID = str(PROGRAM_ID)


def plan(kind: Kind = Kind.VALIDATOR, clone_from: str = "", folder: Path = FOLDER, port: int = 8899) -> Plan:
    return Plan(kind, folder, port, PROGRAM_ID, b"\x7fELF", clone_from)


def ledger_and_ports(port: int) -> list[str]:
    return [
        *("--ledger", f"{FOLDER}/ledger", "--quiet", "--bind-address", "127.0.0.1"),
        *("--rpc-port", str(port), "--faucet-port", str(port + 2), "--gossip-port", str(port + 3)),
        *("--limit-ledger-size", "1500000"),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (plan(), [*ledger_and_ports(8899), "--bpf-program", ID, f"{FOLDER}/openresearch.so"]),
        (plan(port=9000), [*ledger_and_ports(9000), "--bpf-program", ID, f"{FOLDER}/openresearch.so"]),
        (
            plan(clone_from=DEVNET),
            [
                *ledger_and_ports(8899),
                *("--url", DEVNET),
                *("--clone-upgradeable-program", ID, "--clone-upgradeable-program", str(METAPLEX)),
            ],
        ),
        (
            plan(Kind.SURFPOOL),
            [
                *("start", "--host", "127.0.0.1", "--port", "8899", "--ws-port", "8900"),
                *("--no-tui", "--no-studio", "--no-deploy", "--offline"),
            ],
        ),
        (
            plan(Kind.SURFPOOL, DEVNET),
            [
                *("start", "--host", "127.0.0.1", "--port", "8899", "--ws-port", "8900"),
                *("--no-tui", "--no-studio", "--no-deploy", "--rpc-url", DEVNET),
            ],
        ),
    ],
)
def test_arguments(given: Plan, expected: list[str]) -> None:
    assert arguments(given) == expected


def test_the_environment_is_its_own() -> None:
    outer = {"PATH": "/bin", "HOME": "/home/me", "SECRET": "x", "LANG": "C"}
    assert variables(outer, FOLDER) == {
        "PATH": "/bin",
        "LANG": "C",
        "HOME": str(FOLDER),
        "NO_DNA": "1",
        "RUST_LOG": "warn",
    }


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"one\n\nNotice! No wallet available.\n", "one"),
        (
            b"thread 'main' panicked at sockets.rs:53:17:\ngossip bind_to port 8000: in use\nstack:\n",
            "gossip bind_to port 8000: in use",
        ),
        (b"Notice! No wallet available.\n", "no output"),
    ],
)
def test_its_last_words_say_why_it_ended(tmp_path: Path, written: bytes, told: str) -> None:
    given = plan(folder=tmp_path)
    given.log.write_bytes(written)
    assert last_words(given).startswith(told)


@pytest.mark.parametrize(("kind", "variable"), [(Kind.VALIDATOR, "SOLANA_TEST_VALIDATOR"), (Kind.SURFPOOL, "SURFPOOL")])
def test_it_is_found_by_variable_then_path(tmp_path: Path, kind: Kind, variable: str) -> None:
    named, on_path = standin.make(tmp_path / "named"), standin.make(tmp_path / "bin" / kind.program)
    path = {"PATH": str(on_path.parent)}
    assert find(kind, path) == on_path
    assert find(kind, path | {variable: str(named)}) == named
    for environment in ({"PATH": str(tmp_path)}, path | {variable: str(tmp_path / "none")}):
        with pytest.raises(NotFound, match=kind.program) as refusal:
            find(kind, environment)
        assert variable in refusal.value.cure


@pytest.fixture
def beside(tmp_path: Path) -> Plan:
    """A plan that can be started."""
    return replace(plan(folder=tmp_path / "validator", port=free_port()), image=image())


def test_it_is_waited_for_and_stopped(tmp_path: Path, beside: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    said: list[str] = []
    with Validator(standin.make(tmp_path / "program", standin.DELAYED), beside) as running:
        running.wait(30, said.append)
        running.check()
        assert said
        assert running.seconds is not None
        seen, environment = json.loads((beside.folder / "seen.json").read_text())
        assert seen == arguments(beside)
        assert "hidden" not in environment.values()
        assert running.stop()
        assert running.stop()  # again, harmless
    assert not is_alive(running.process.pid)
    assert (beside.ledger / "ledger.sqlite").exists()


@pytest.mark.parametrize(
    ("behaviour", "seconds", "words"),
    [
        (standin.EXITS, 30, "exited with status 7: Error: the ledger is of another version"),
        (standin.SILENT, 0.6, "did not answer (ConnectError"),
        (standin.BEHIND, 1.5, "Node is behind by 42 slots"),
    ],
)
def test_one_that_does_not_become_ready(
    tmp_path: Path, beside: Plan, behaviour: str, seconds: float, words: str
) -> None:
    with Validator(standin.make(tmp_path / "program", behaviour), beside) as running:
        with pytest.raises(NetworkUnreachable, match="solana-test-validator") as refusal:
            running.wait(seconds)
        assert words in refusal.value.problem
        assert str(beside.log) in refusal.value.cure
    assert not is_alive(running.process.pid)


def test_one_that_replays_its_old_ledger_is_waited_for(tmp_path: Path, beside: Plan) -> None:
    """Until it is through, it is healthy and shows the state of an old block as confirmed."""
    said: list[str] = []
    with Validator(standin.make(tmp_path / "program", standin.REPLAYS), beside) as running:
        running.wait(30, said.append)
    assert [line.rpartition(": ")[2] for line in said if "answer" not in line] == [
        "no new block is confirmed, the last is 0",
        "no new block is confirmed, the last is 5",
        "no new block is confirmed, the last is 36",
    ]


def test_one_that_hangs_on_its_old_ledger_is_started_once_more(tmp_path: Path, beside: Plan) -> None:
    program, said = standin.make(tmp_path / "program", standin.HANGS_ONCE), list[str]()
    with Validator(program, beside) as running:
        running.wait(30)
    with Validator(program, beside) as running:
        first = running.process.pid
        running.wait(12, said.append)
        assert running.process.pid != first
        assert not is_alive(first)
    assert sum("starting it once more" in line for line in said) == 1


def test_one_that_hangs_on_its_old_ledger_for_good_is_given_up(tmp_path: Path, beside: Plan) -> None:
    with Validator(standin.make(tmp_path / "program"), beside) as running:
        running.wait(30)
    with (
        Validator(standin.make(tmp_path / "silent", standin.SILENT), beside) as running,
        pytest.raises(NetworkUnreachable, match="was not ready after 1 s") as refusal,
    ):
        running.wait(1)
    assert "--reset" in refusal.value.cure
    assert not is_alive(running.process.pid)


def test_one_that_does_not_stop_when_asked_is_killed(tmp_path: Path, beside: Plan) -> None:
    with Validator(standin.make(tmp_path / "program", standin.STUBBORN), beside, patience=0.3) as running:
        running.wait(30)
        assert not running.stop()
    assert not is_alive(running.process.pid)


def test_one_at_a_time_and_of_one_origin(tmp_path: Path, beside: Plan) -> None:
    program = standin.make(tmp_path / "program")
    with Validator(program, beside) as running:
        running.wait(30)
        with pytest.raises(ChainError, match=rf"already running in .*, process {running.process.pid}\."):
            Validator(program, beside)
        # a killed parent takes its lock along, the validator's own is still held
        os.close(running._lock)
        running._lock = -1
        with pytest.raises(ChainError, match="already running"):
            Validator(program, beside)
    other = replace(beside, clone_from=DEVNET)
    with pytest.raises(ChainError, match="created with another program") as refusal:
        Validator(program, other)
    assert "--reset" in refusal.value.cure
    (beside.folder / "irys").mkdir()
    with Validator(standin.make(tmp_path / "silent", standin.SILENT), other, reset=True):
        assert not beside.ledger.exists()
        assert not (beside.folder / "irys").exists()


def test_its_ports_must_be_free(tmp_path: Path, beside: Plan) -> None:
    program = standin.make(tmp_path / "program")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", beside.port + PORTS - 1))
        taken.listen()
        with pytest.raises(ChainError, match=f"Port {beside.port + PORTS - 1} on"):
            Validator(program, beside)
    with Validator(standin.make(tmp_path / "silent", standin.SILENT), beside):
        pass  # the refused one left no lock


def test_one_that_cannot_be_started(tmp_path: Path, beside: Plan) -> None:
    text = tmp_path / "text"
    text.write_text("no program")
    text.chmod(0o755)
    with pytest.raises(ChainError, match=r"Cannot start .*Exec format error"):
        Validator(text, beside)


def test_last_words_are_of_the_output_else_of_the_log(tmp_path: Path) -> None:
    found = plan(folder=tmp_path)
    assert last_words(found) == "no output"
    found.ledger.mkdir()
    (found.ledger / "validator.log").write_text("one\npanicked\x1b[2J at line 3\n\n")
    assert last_words(found) == "panicked[2J at line 3"
    found.log.write_bytes(b"x" * 20_000 + b"\nError: \xff\n")
    assert last_words(found) == "Error: \ufffd"


# --- the command ---


@contextmanager
def localnet(
    home: Path, *options: str, how: signal.Signals = signal.SIGINT, **executables: Path
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """`chain localnet` under way: what it printed, and the options with which a client uses it."""
    command = [str(Path(sys.executable).parent / "chain"), "localnet", "--home", str(home), "--json", *options]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ARMLX_")}
    process = subprocess.Popen(
        [*command, "--port", "0", "--irys-port", "0"],
        env=ours | {name: str(path) for name, path in executables.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        where = json.loads("".join(lines))
        yield where, ["--network", where["rpc"], "--irys", where["irys"], "--home", str(home)]
    finally:
        process.send_signal(how)
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert (process.returncode, err.splitlines()[-1]) == (0, "stopped"), err
    assert "Traceback" not in err


def ask(*command: str) -> Any:
    variables = {"ARMLX_NETWORK": None, "ARMLX_HOME": None, "ARMLX_IRYS": None}
    result = CliRunner().invoke(main, [*command, "--json"], env=variables)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def chain_of(net: list[str]) -> list[str]:
    """The options for commands that need no Irys."""
    return [*net[:2], *net[4:]]


def settle_a_project(net: list[str], folder: Path) -> None:
    """A project is created and its token bought: program, wallets, faucet and Irys all work."""
    sources = local.artifacts()
    files = {"protocol": sources.protocol, "snapshot": sources.snapshot, "benchmark": sources.benchmark}
    files["metrics"] = sources.baseline_metrics
    given = []
    for name, data in files.items():
        (folder / name).write_bytes(data)
        given += [f"--{name}", str(folder / name)]
    made = ask("project", "create", *given, "--name", "Test", "--symbol", "TST", *net)
    assert made["project"] == 0
    ask("token", "buy", "--lamports", "1000000", "--project", "0", *chain_of(net))


def test_the_command_with_a_stand_in(tmp_path: Path) -> None:
    """Started, initialized and funded; used; stopped; begun again with the same ledger, and anew."""
    program = standin.make(tmp_path / "solana-test-validator", standin.DELAYED)
    home = tmp_path / "home"
    with localnet(home, "--validator", SOLANA_TEST_VALIDATOR=program) as (where, net):
        assert where["program"] == ID
        assert where["ledger"] == str(home / "validator" / "ledger")
        settle_a_project(net, tmp_path)
        assert [entry["id"] for entry in ask("project", "list", *chain_of(net))] == [0]
        pid = where["process"]
        assert is_alive(pid)
    assert not is_alive(pid)
    with localnet(home, "--validator", how=signal.SIGTERM, SOLANA_TEST_VALIDATOR=program) as (_, net):
        assert [entry["id"] for entry in ask("project", "list", *chain_of(net))] == [0]
    with localnet(home, "--validator", "--reset", SOLANA_TEST_VALIDATOR=program) as (_, net):
        assert ask("project", "list", *chain_of(net)) == []


def test_the_command_with_surfpools_stand_in(tmp_path: Path) -> None:
    program = standin.make(tmp_path / "surfpool")
    with localnet(tmp_path / "home", "--surfpool", SURFPOOL=program) as (where, net):
        assert where["ledger"] == "in memory"
        settle_a_project(net, tmp_path)


def test_the_command_ends_when_its_validator_does(tmp_path: Path) -> None:
    program = standin.make(tmp_path / "program", standin.LATER_DIES)
    command = [str(Path(sys.executable).parent / "chain"), "localnet", "--home", str(tmp_path / "home")]
    done = subprocess.run(
        [*command, "--validator", "--port", "0", "--irys-port", "0"],
        env=os.environ | {"SOLANA_TEST_VALIDATOR": str(program)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "exited with status 101: panicked" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--validator", "--surfpool"), "--validator and --surfpool exclude each other."),
        (("--reset",), "--clone-from and --reset need"),
        (("--clone-from", "devnet"), "--clone-from and --reset need"),
        (("--validator", "--clone-from", "nowhere"), "There is no network named 'nowhere'"),
        (("--validator", "--clone-from", "embedded"), "has no deployed program"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    program = {"SOLANA_TEST_VALIDATOR": str(standin.make(tmp_path / "program"))}
    result = CliRunner().invoke(main, ["localnet", *options, "--home", str(tmp_path)], env=program)
    assert result.exit_code in (1, 2)
    assert words in result.output


# --- the real ones, where they exist ---


def slot_of_the_first_use(where: dict[str, Any]) -> int:
    """Of the transaction that initialized the program."""
    network = RpcNetwork(where["rpc"])
    (*_, first) = network.entries(Pdas(PROGRAM_ID).config())
    network.close()
    return first.slot


@pytest.mark.parametrize("kind", list(Kind))
def test_the_real_program(tmp_path: Path, kind: Kind) -> None:
    """Our program in a real validator: created, bought, stopped, and gone on with."""
    named = os.environ.get(kind.variable, kind.program)
    optional(shutil.which(named) is not None, f"{kind.program}, on PATH or as {kind.variable}")
    home, option = tmp_path / "home", f"--{kind.value}"
    with localnet(home, option) as (where, net):
        assert slot_of_the_first_use(where) < 32  # nobody waits for the first final block
        settle_a_project(net, tmp_path)
    if kind is Kind.VALIDATOR:
        with localnet(home, option) as (_, net):
            assert [entry["id"] for entry in ask("project", "list", *chain_of(net))] == [0]
