"""A copy of the harness with its own protocol.json and cache, as a module or as a command."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

HARNESS = Path(__file__).parents[2] / "prepare.py"
TINY = {"sequenceLength": 64, "vocabSize": 512, "evalTokens": 64 * 37 + 5}
TEXT = ("--text", "stdlib", "--max-bytes", "400000")
_serial = itertools.count()


def protocol(**fields: Any) -> dict[str, Any]:
    """A protocol.json with these fields of ml_train and a budget of 8 seconds."""
    return {
        "execution": {"stopCondition": {"trainingSecondsBudget": 8}},
        "archetypeExtensions": {"ml_train": fields},
    }


@dataclass(frozen=True)
class Copy:
    folder: Path
    cache: Path
    endpoint: str = "http://127.0.0.1:9"

    @classmethod
    def make(cls, folder: Path, cache: Path, document: Any = None, endpoint: str = endpoint) -> Copy:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(HARNESS, folder)
        document = protocol(**TINY) if document is None else document
        (folder / "protocol.json").write_text(document if isinstance(document, str) else json.dumps(document))
        return cls(folder, cache, endpoint)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "AUTORESEARCH_CACHE": str(self.cache), "HF_ENDPOINT": self.endpoint}

    def load(self) -> ModuleType:
        name = f"prepare_copy_{next(_serial)}"
        spec = importlib.util.spec_from_file_location(name, self.folder / "prepare.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with mock.patch.dict(os.environ, self.environment()):
            spec.loader.exec_module(module)
        return module

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.folder / "prepare.py"), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.folder / "prepare.py"), *arguments],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 1 and, at the end, one line on stderr that says these words."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("prepare.py: "), last
    for word in words:
        assert word in last
