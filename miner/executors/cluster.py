"""The machines of a Ray cluster: one worker on each, for itself, and at most one trial at a time on it.

Ray is an optional dependency and is imported here only. It is configured to send nothing of this process: no working
directory, no environment, no log; and to count nobody's usage. A worker takes all of its machine's cores and GPUs in
Ray's books, so that two sessions never measure on one machine at once. Whoever can reach a cluster's ports can run code
on its machines: it belongs in a private network.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.extras import install
from common.resources import shown
from miner.executors.worker import Ready, Setup, TrialJob, TrialResult, Worker
from trainer.errors import EnvironmentNotReady

Say = Callable[[str], None]

MAX_DEATHS = 3  # of a machine's worker, with no trial finished in between, until the machine is excluded
_CONNECT = 10.0  # seconds
_ANSWER = 60.0  # seconds for any one answer of the cluster
_OPENING = 7 * 3600.0  # seconds for a machine to prepare environment and data


@dataclass(frozen=True, slots=True)
class Returned:
    """A trial that came back from `machine`: its result, or in `lost` why there is none."""

    machine: str
    number: int
    result: TrialResult | None
    lost: str = ""


@dataclass(slots=True)
class _Machine:
    """A node of the cluster: `ref` is the answer that is waited for, `number` the trial it is about (None: opening)."""

    node: str
    name: str
    actor: Any
    ref: Any
    since: float
    number: int | None = None
    deaths: int = 0
    sigma: float | None = None


class Cluster:
    """The machines that fit `setup`; the others are refused by name, reported to `say`. The first `wait` begins to
    prepare them.

    `trial_seconds` is the longest that one trial may take. EnvironmentNotReady if there is no Ray or no cluster.
    """

    def __init__(self, address: str, setup: Setup, say: Say, *, trial_seconds: float) -> None:
        self._ray = load()
        self._setup, self._say, self._limit = setup, say, trial_seconds
        self._machines: dict[str, _Machine] = {}  # by the node's id
        self._out: set[str] = set()  # nodes that are refused or excluded
        self._connect(address)
        self._here = str(self._ray.get_runtime_context().get_node_id())

    def _connect(self, address: str) -> None:
        if self._ray.is_initialized():
            return
        try:
            host, _, port = address.rpartition(":")
            if host:  # Ray itself would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise EnvironmentNotReady(
                f"There is no Ray cluster at {address}: {said[0]}",
                f"Start one with `{shown('ray start --head')}` on one machine, or check --ray-address.",
            ) from error

    def close(self) -> None:
        """Leave the cluster; what its machines are measuring for us ends."""
        self._ray.shutdown()

    # --- what there is ---

    def idle(self, *, here: bool = True) -> list[str]:
        """The machines that wait for a trial; `here` False leaves out the one that this process runs on."""
        return [m.name for m in self._machines.values() if m.ref is None and (here or m.node != self._here)]

    def measures_here(self) -> bool:
        """Whether the machine that this process runs on is measuring a trial, or being prepared."""
        here = self._machines.get(self._here)
        return here is not None and here.ref is not None

    def opening(self) -> bool:
        """Whether some machine is still being prepared."""
        return any(m.ref is not None and m.number is None for m in self._machines.values())

    def sigma(self, name: str) -> float | None:
        """A machine's run-to-run noise in bpb, None before it is known."""
        return next((m.sigma for m in self._machines.values() if m.name == name), None)

    # --- work ---

    def send(self, name: str, job: TrialJob) -> None:
        """Have an idle machine measure a trial."""
        machine = next(m for m in self._machines.values() if m.name == name and m.ref is None)
        machine.ref, machine.number = machine.actor.measure.remote(job), job.number
        machine.since = time.monotonic()

    def wait(self, seconds: float) -> list[Returned]:
        """Wait until a machine answers, at most `seconds`; the trials that came back or were lost.

        New machines are taken in, and a machine whose worker died gets a new one.
        """
        self._refresh()
        refs = {m.ref: m for m in self._machines.values() if m.ref is not None}
        if not refs:
            time.sleep(min(1.0, seconds))
            return []
        ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=seconds)
        found = [self._answer(refs[ref]) for ref in ready]
        found += [self._overdue(m) for ref, m in refs.items() if ref not in ready]
        return [entry for entry in found if entry is not None]

    def _answer(self, machine: _Machine) -> Returned | None:
        ref, number = machine.ref, machine.number
        try:
            value = self._ray.get(ref, timeout=_ANSWER)
        except self._ray.exceptions.RayError as error:
            return self._died(machine, _words(error))
        machine.ref = machine.number = None
        if isinstance(value, Ready) and number is None:
            self._opened(machine, value)
            return None
        if not isinstance(value, TrialResult) or number is None:
            return self._set_aside(machine, number, "its answer is not a trial")
        if value.problem:
            return self._set_aside(machine, number, value.problem)
        machine.deaths, machine.sigma = 0, value.sigma
        return Returned(machine.name, number, value)

    def _overdue(self, machine: _Machine) -> Returned | None:
        limit = _OPENING if machine.number is None else self._limit
        if time.monotonic() - machine.since <= limit:
            return None
        return self._died(machine, f"no answer for {limit / 60:.0f} minutes")

    # --- machines ---

    def _refresh(self) -> None:
        """Begin to prepare every living node that is new."""
        for node in self._nodes():
            known = str(node["NodeID"])
            cores = float(node["Resources"].get("CPU", 0))
            if cores > 0 and known not in self._out and known not in self._machines:
                name = str(node.get("NodeName") or node["NodeManagerAddress"])
                self._machines[known] = self._open(known, name, node["Resources"])

    def _nodes(self) -> list[dict[str, Any]]:
        """The living nodes of the cluster."""
        try:
            return [node for node in self._ray.nodes() if node["Alive"]]
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
            raise EnvironmentNotReady(
                f"The Ray cluster does not answer: {_words(error)}.",
                "Check its head, then run the command again; the session resumes.",
            ) from error

    def _open(self, node: str, name: str, resources: dict[str, float]) -> _Machine:
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        remote = self._ray.remote(Worker).options(
            num_cpus=resources["CPU"],
            num_gpus=resources.get("GPU", 0),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=affinity(node_id=node, soft=False),
        )
        actor = remote.remote(self._setup, name)
        return _Machine(node, name, actor, actor.open.remote(), time.monotonic())

    def _opened(self, machine: _Machine, found: Ready) -> None:
        if found.problem:
            self._set_aside(machine, None, found.problem)
            return
        machine.name, machine.sigma = found.name, found.sigma
        self._say(f"{machine.name} is ready")

    def _set_aside(self, machine: _Machine, number: int | None, why: str) -> Returned | None:
        """Exclude a machine for the rest of this process; its trial, if it has one, is lost."""
        self._ray.kill(machine.actor)
        self._out.add(machine.node)
        del self._machines[machine.node]
        self._say(f"{machine.name} is {'refused' if number is None else 'excluded'}: {why}")
        return None if number is None else Returned(machine.name, number, None, why)

    def _died(self, machine: _Machine, why: str) -> Returned | None:
        """A worker that is gone: its machine gets a new one, unless it is gone too or this keeps happening."""
        number, machine.deaths = machine.number, machine.deaths + 1
        self._ray.kill(machine.actor)
        alive = {str(node["NodeID"]): node for node in self._nodes()}
        lost = None if number is None else Returned(machine.name, number, None, why)
        if machine.node not in alive:
            del self._machines[machine.node]
            self._say(f"{machine.name} has left the cluster")
        elif machine.deaths >= MAX_DEATHS:
            self._set_aside(machine, number, f"its worker died {machine.deaths} times: {why}")
        else:
            node = alive[machine.node]
            again = self._open(machine.node, str(node.get("NodeName") or node["NodeManagerAddress"]), node["Resources"])
            again.deaths = machine.deaths
            self._machines[machine.node] = again
            self._say(f"{machine.name} lost its worker; starting a new one: {why}")
        return lost


def load() -> Any:
    """The package ray, set up to keep what is ours; EnvironmentNotReady if it is missing."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # else it would send the working directory along
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")  # else it knows no cluster on a Mac
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.exceptions")
    except ImportError as error:
        raise EnvironmentNotReady(
            f"--executor ray needs the package ray, which is not installed: {error}.", install("ray")
        ) from error
    return ray


def _words(error: BaseException) -> str:
    """The first non-empty line of an error that may fill a page."""
    cause = getattr(error, "cause", None)
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
