"""Fixtures of the miner's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.miner import sessions
from tests.support import require


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one made-up session (`tests.miner.sessions`), made once in about 5 s; for tests that only look."""
    require(shutil.which("git") is not None, "git (apt-get install git)")
    home = tmp_path_factory.mktemp("night")
    sessions.make(home)
    return home
