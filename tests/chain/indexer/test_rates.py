"""A project behind a provider of ten calls a second: its state at once, its history at that pace."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from chain.indexer.rules import Follower
from chain.network.embedded import EmbeddedNetwork
from tests import local
from tests.benchmarks.bench_rates import history
from tests.chain.metered import metered

RATE, COUNT = 10, 150


@pytest.mark.parametrize("strict", [False, True])
def test_state_comes_first_and_history_at_the_providers_pace(tmp_path: Path, strict: bool) -> None:
    home = local.home_with_project(tmp_path / "home")
    with closing(EmbeddedNetwork(home)) as embedded:
        history(embedded, COUNT)
        with (
            metered(embedded, RATE, 0.02, strict=strict) as (network, provider),
            Follower(network, 0, tmp_path / "index.sqlite") as follower,
        ):
            follower.refresh()
            assert follower.project.id == 0
            assert provider.now < 1  # a few calls, whatever the history is
            follower.sync()
            while not follower.backfill().done:
                pass
            assert follower.backlog().done
            least = provider.told[200] / RATE
            assert provider.now < 1.6 * least
            # It learns the pace: a client that only waits after each refusal is refused once in four calls.
            assert provider.told[429] < provider.told[200] / 8
