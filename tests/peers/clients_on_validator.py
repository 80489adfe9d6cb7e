"""Solana's own clients against Agave's validator, so that what they do on our node is measured by the real one.

Not collected with the others, since it starts slowly and keeps a core busy: with `solana-test-validator` on PATH or as
SOLANA_TEST_VALIDATOR, `uv run pytest tests/peers/clients_on_validator.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from chain.localnet.validator import Kind, Plan, Validator, find, free_port
from chain.program import PROGRAM_ID, image
from tests.peers.test_solana import *  # noqa: F403
from tests.support import optional


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """The validator with our program; like a server of ours it has a `url`."""
    kind = Kind.VALIDATOR
    named = os.environ.get(kind.variable, kind.program)
    optional(shutil.which(named) is not None, f"{kind.program}, on PATH or as {kind.variable}")
    plan = Plan(kind, tmp_path_factory.mktemp("validator"), free_port(), PROGRAM_ID, image())
    with Validator(find(kind), plan) as validator:
        validator.wait(180)
        yield plan
