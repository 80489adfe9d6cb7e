"""Ctrl-C at any moment while a program's own imports run."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import NoReturn

import pytest
from click.testing import CliRunner

from tests.test_help import PROGRAMS

# What an import of ours does when Ctrl-C comes: in a class body Python makes another error of it, in a finalizer it
# prints a traceback and goes on.
ANYWHERE = {
    "at the top": "stop()",
    "in a class body": "class Name:\n    __set_name__ = lambda *_: stop()\nclass Body:\n    name = Name()",
    "in a finalizer": "class Gone:\n    __del__ = lambda _: stop()\nGone()",
}
PROBE = """
import importlib.abc, importlib.util, os, signal, sys

def stop():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, *_):
        return importlib.util.spec_from_loader(name, self) if name == "click" else None

    def exec_module(self, module):
        exec({body!r}, {{"stop": stop}})

sys.meta_path.insert(0, Finder())
sys.argv = ["{program}", "--help"]
from importlib.metadata import entry_points
(start,) = entry_points(group="console_scripts", name="{program}")
start.load()()
"""


def begin(program: str, body: str, **how: object) -> subprocess.CompletedProcess[str]:
    code = PROBE.format(program=program, body=body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **how)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("where", ANYWHERE)
@pytest.mark.parametrize("program", ["miner", "verifier", "chain"])
def test_ctrl_c_while_a_program_is_imported(program: str, where: str) -> None:
    done = begin(program, ANYWHERE[where])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nStopped.\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_while_its_arguments_are_read(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(PROGRAMS[program], "parse_args", stop)
    done = CliRunner().invoke(PROGRAMS[program], [])
    assert (done.exit_code, done.output) == (130, "\nStopped.\n")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """A job that the shell started with &."""
    done = begin("chain", "stop(); print('went on')", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert done.stdout == "went on\n"
