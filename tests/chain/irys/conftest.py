"""A local node of the tests in this folder, with one key for all."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.irys.client import Irys
from chain.irys.items import LocalNode
from chain.irys.node import RunningNode, serve
from common.files import write_atomic

LIMIT = 4 << 20  # bytes of an item


@pytest.fixture(scope="session")
def shared_key(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One RSA key for all stores: making one takes seconds."""
    store = tmp_path_factory.mktemp("key")
    LocalNode(store).key()
    assert stat.S_IMODE((store / "key.pem").stat().st_mode) == 0o600
    return (store / "key.pem").read_bytes()


@pytest.fixture
def node(tmp_path: Path, shared_key: bytes) -> Iterator[RunningNode]:
    write_atomic(tmp_path / "store" / "key.pem", shared_key, mode=0o600)
    with serve(tmp_path / "store", max_item=LIMIT) as running:
        yield running


@pytest.fixture
def irys(node: RunningNode) -> Iterator[Irys]:
    with Irys.at(node.url, backoff=0.001) as client:
        yield client
