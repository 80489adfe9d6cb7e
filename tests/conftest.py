"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support import require

if TYPE_CHECKING:
    from chain.localnet.server import Server
    from chain.network.embedded import EmbeddedNetwork
    from tests.attacks.tiny import TinyHome

settings.register_profile("project", deadline=None, max_examples=40)  # a busy machine is no failure
settings.load_profile("project")

# The threads that numpy starts for matrices, which no test needs, cost each process a tenth of a second of every core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A shell starts what runs in its background with SIGINT ignored, and commands that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What is not of the unit layer: real sandboxes, training, servers, compilers, killed processes. `-m "not slow"`.
SLOW = (
    "attacks",
    "benchmarks",
    "chain/commands/test_cli.py",
    "chain/commands/test_commands.py",
    "chain/indexer/test_rates.py",
    "chain/indexer/test_rules.py",
    "chain/indexer/test_watch.py",
    "chain/irys/test_faults.py",
    "chain/irys/test_funding.py",
    "chain/irys/test_gateway.py",
    "chain/irys/test_node.py",
    "chain/localnet",
    "chain/network/test_embedded.py",
    "chain/network/test_execution.py",
    "chain/network/test_rpc_faults.py",
    "chain/network/test_sending.py",
    "chain/pages/test_overview.py",
    "chain/program/test_program.py",
    "chain/program/test_program_build.py",
    "chain/wallet/test_wallet_commands.py",
    "e2e",
    "faults",
    "fuzz",
    "harness",
    "miner/executors",
    "miner/proposers/test_agent.py",
    "miner/proposers/test_rehearsal.py",
    "miner/proposers/test_tune.py",
    "miner/report/test_dashboard.py",
    "miner/report/test_example.py",
    "miner/report/test_look.py",
    "miner/session/test_start.py",
    "miner/setup",
    "miner/staking/test_submit.py",
    "peers",
    "trainer/doctor",
    "trainer/measurement",
    "trainer/running",
    "trainer/sandbox",
    "trainer/test_train.py",
    "verifier/test_audit.py",
    "verifier/test_schema.py",
    "verifier/test_settle.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests below the paths of SLOW."""
    slow = [Path(__file__).parent / path for path in SLOW]
    assert all(path.exists() for path in slow), [str(path) for path in slow if not path.exists()]
    files = {path for path in {item.path for item in items} if any(path.is_relative_to(each) for each in slow)}
    for item in items:
        if item.path in files:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _no_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's own configuration is not the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ARMLX_")]:
            patch.delenv(name)
        patch.setenv("ARMLX_CONFIG", str(tmp_path_factory.mktemp("configuration") / "none.toml"))
        yield


@pytest.fixture(autouse=True)
def _calm_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work on this machine is not the tests': a busy one would reject nobody."""
    from trainer.machine import fitness

    own = (Path(__file__).parent / "trainer" / room for room in ("machine", "doctor"))
    if not any(request.path.is_relative_to(path) for path in own):
        monkeypatch.setattr(fitness, "read", fitness.MachineState)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyHome]:
    """A home with the tiny project published in it (`tests.attacks.tiny`), made once per session in about 15 s.

    Tests share its ledger: use new proposals, and `copy` it where a test settles or changes the best. Each worker of
    pytest-xdist has its own copy of the one home that the first of them made.
    """
    from common.files import locked
    from tests.attacks import tiny

    require(sys.platform != "linux" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AUTORESEARCH_CACHE", raising=False)  # the user's data is not the tiny project's
        if "PYTEST_XDIST_WORKER" not in os.environ:
            yield tiny.publish(tmp_path_factory.mktemp("tiny"))
            return
        shared = tmp_path_factory.getbasetemp().parent  # of all workers
        made = shared / "tiny.pickle"
        with locked(shared / "tiny.lock", wait=300):
            if not made.exists():
                (shared / "tiny").mkdir()
                made.write_bytes(pickle.dumps(tiny.publish(shared / "tiny")))
            home: TinyHome = pickle.loads(made.read_bytes())
        yield home.copy(tmp_path_factory.mktemp("tiny") / "home")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNetwork]:
    """A new embedded chain."""
    from chain.network.embedded import EmbeddedNetwork

    network = EmbeddedNetwork(tmp_path_factory.mktemp("home"))
    yield network
    network.close()


@pytest.fixture(scope="module")
def node(network: EmbeddedNetwork) -> Iterator[Server]:
    """That chain, served as a validator serves its own."""
    from chain.localnet.server import serve

    with serve(network, port=0).start() as node:
        yield node
