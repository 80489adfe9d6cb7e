"""The local node against Agave's `solana-test-validator`: the same requests, and the same answers but for DIFFERS.

What Agave 4.1.2 answers is recorded in agave.json, so this runs everywhere. Where the validator is, the recording is
compared with it; `RECORD_AGAVE=1` records it anew. docs/networks.md shows the outcome method by method.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from chain.localnet.parameters import METHOD_NOT_FOUND
from chain.localnet.server import serve
from chain.localnet.validator import Kind, Plan, Validator, free_port
from chain.network.embedded import EmbeddedNetwork
from chain.program import PROGRAM_ID, image
from tests.chain.localnet import requests
from tests.chain.localnet.scenario import NOTIFICATIONS, Chain, answers
from tests.support import optional

RECORDED: Final = Path(__file__).parent / "agave.json"
DOCS: Final = Path(__file__).parents[3] / "docs" / "networks.md"
BEGIN, END = "<!-- methods: tests/chain/localnet/test_agave.py -->\n", "<!-- end of methods -->\n"
_COMMITMENT = "an unknown commitment is refused, for Agave's taking it for `finalized` hides a typing error"
DIFFERS: Final = [
    # (request, where in the answer, why)
    (".*'commitment': 'sure'.*", ".*", _COMMITMENT),
    ("getClusterNodes .*", "/0/.*", "no addresses for gossip, TPU and TVU, for nothing listens there"),
    ("getBlock .*", "/rewards.*", "no rewards, for nobody leads and fees are burnt"),
    ("getSupply .*", "/value/nonCirculatingAccounts.*", "no account is locked up"),
    ("getAccountInfo .*Sysvar.*", "/value/lamports", "a sysvar holds 1 lamport, as LiteSVM makes it"),
    ("slotSubscribe .*", "/error/data", "an error without the debugging print of Agave's parser"),
    ("slotsUpdatesSubscribe .*", ".*", "not there: unstable, and about a block's way through a validator"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the local node answers."""
    network = EmbeddedNetwork(tmp_path_factory.mktemp("home"))
    with serve(network, port=0).start() as node:
        yield answers(Chain(node.url))
    network.close()


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def differences(expected: Any, found: Any, at: str = "") -> Iterator[str]:
    """Where two answers differ, as JSON pointers."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            if name in expected and name in found:
                yield from differences(expected[name], found[name], f"{at}/{name}")
            else:
                yield f"{at}/{name}"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{at}/{index}")
    elif expected != found or type(expected) is not type(found):
        yield at


def reasons(request: str, expected: Any, found: Any) -> dict[str, str]:
    """Why two answers differ, by where they do; "" where nobody knows."""
    known = [(path, why) for which, path, why in DIFFERS if re.fullmatch(which, request)]
    return {
        where: next((why for path, why in known if re.fullmatch(path, where)), "")
        for where in differences(expected, found)
    }


def of(method: str, told: dict[str, Any]) -> list[str]:
    return sorted(request for request in told if request.partition(" ")[0] == method)


@pytest.mark.parametrize("method", [*requests.METHODS, *sorted(NOTIFICATIONS)])
def test_it_answers_as_agave(method: str, told: dict[str, Any], recorded: dict[str, Any]) -> None:
    assert of(method, told) == of(method, recorded) != []
    for request in of(method, told):
        unexplained = {where for where, why in reasons(request, recorded[request], told[request]).items() if not why}
        assert not unexplained, (request, recorded[request], told[request])


def test_every_difference_is_one(told: dict[str, Any], recorded: dict[str, Any]) -> None:
    found = [set(reasons(request, recorded[request], told[request]).values()) for request in told]
    assert {why for _, _, why in DIFFERS} == set().union(*found)


def test_the_table_of_methods_is_in_the_docs(told: dict[str, Any], recorded: dict[str, Any]) -> None:
    lines = ["| method | against Agave 4.1.2 |", "|---|---|"]
    for method in requests.METHODS:
        asked = of(method, told)
        if all(recorded[one] == {"error": {"code": METHOD_NOT_FOUND, "message": "Method not found"}} for one in asked):
            continue  # of no node
        whys = [why for one in asked for why in reasons(one, recorded[one], told[one]).values()]
        outcome = "; ".join(dict.fromkeys(whys)) or "same"
        lines.append(
            f"| `{method}` | {outcome if outcome == 'same' or 'not there' in outcome else f'differs: {outcome}'} |"
        )
    table = "\n".join(lines) + "\n"
    before, _, rest = DOCS.read_text().partition(BEGIN)
    shown, _, after = rest.partition(END)
    if os.environ.get("RECORD_AGAVE"):
        DOCS.write_text(before + BEGIN + table + END + after)
    else:
        assert shown == table


def test_agave_answers_as_recorded(tmp_path: Path, recorded: dict[str, Any]) -> None:
    found = shutil.which(os.environ.get(Kind.VALIDATOR.variable, Kind.VALIDATOR.program))
    optional(found is not None, f"{Kind.VALIDATOR.program}, on PATH or as {Kind.VALIDATOR.variable}")
    assert found is not None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    optional(version == "4.1.2", f"{Kind.VALIDATOR.program} 4.1.2, of which the answers are recorded, not {version}")
    plan = Plan(Kind.VALIDATOR, tmp_path / "validator", free_port(), PROGRAM_ID, image())
    hasty = tmp_path / "hasty"  # four times as many slots a second: they are final that much sooner
    hasty.write_text(f'#!/bin/sh\nexec "{found}" "$@" --ticks-per-slot 16\n')
    hasty.chmod(0o755)
    with Validator(hasty, plan) as validator:
        validator.wait(120)
        told = answers(Chain(plan.url))
    if os.environ.get("RECORD_AGAVE"):
        RECORDED.write_text(json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    else:
        snapshot = "getHighestSnapshotSlot []"
        if told[snapshot] == {"error": {"code": -32008, "message": "No snapshot"}}:  # it takes one now and then
            told[snapshot] = recorded[snapshot]
        assert told == recorded


def test_a_sample_of_its_performance_is_as_agaves(tmp_path: Path) -> None:
    """Agave takes the first after a minute, which the recording does not wait for; this is one of 4.1.2."""
    theirs = {
        "numNonVoteTransactions": 0, "numSlots": 672, "numTransactions": 461, "samplePeriodSecs": 60, "slot": 672
    }  # fmt: skip
    network = EmbeddedNetwork(tmp_path)
    network.warp(120)
    with serve(network, port=0).start() as node:
        (ours,) = Chain(node.url).result("getRecentPerformanceSamples", 1)
    network.close()
    assert {name: type(value) for name, value in ours.items()} == {name: type(value) for name, value in theirs.items()}
    assert ours["samplePeriodSecs"] == 60
    assert 0 < ours["numSlots"] <= ours["slot"]
