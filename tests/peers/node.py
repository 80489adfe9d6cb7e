"""Scripts of other people's JavaScript packages, installed here by `npm ci` as package-lock.json pins them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support import require

HERE = Path(__file__).parent
SECONDS = 120


def ask(script: str, question: object) -> Any:
    """What a script of this folder answers to a question; AssertionError with its words if it fails.

    Skipped by name where Node or the packages are missing; under CI they must be there.
    """
    require(shutil.which("node") is not None, "Node.js 20 or newer (nodejs.org)")
    require(
        (HERE / "node_modules").is_dir(), "the packages of tests/peers (npm ci --ignore-scripts --prefix tests/peers)"
    )
    done = subprocess.run(
        ["node", HERE / script],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)
