"""The project page: the live project's figures from real accounts, through the command, as text and page."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from solders.keypair import Keypair

from chain.commands.main import main
from chain.errors import InvalidData
from chain.pages import show
from chain.pages.overview import by_day, infer, track_record
from chain.pages.text import bars
from chain.program import PROGRAM_ID
from chain.program.accounts import ProposalStatus
from chain.program.codec import discriminator
from common.baseline import InvalidBaseline
from tests import official
from tests.chain import live
from tests.chain.layout import encode_account

NOW = 1_795_600_000
KEY = Keypair.from_seed(bytes(32)).pubkey()
HOSTILE = "<script>alert(1)</script>\"'>&\x1b[2J\u202e"


def chain(*arguments: object) -> Any:
    environment = {"ARMLX_NETWORK": None, "ARMLX_HOME": None, "ARMLX_IRYS": None}
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The live project with one approved proposal, and one of each status that is hostile or malformed beside it."""
    home = tmp_path_factory.mktemp("live")
    live.publish(
        home,
        protocol=live.with_purpose(HOSTILE, unheardOf={"spice": [HOSTILE, 3]}),
        proposals=[live.approved(0), live.proposal(1, submitted_at=2**62), live.proposal(2, ProposalStatus.EXPIRED)],
    )
    broken = encode_account(live.proposal(3))[:-3] + b"\x63\xff\xff"  # no such status
    live.put(home, (live.PDAS.proposal(3), broken, PROGRAM_ID))
    live.put(home, (live.PDAS.project(9), discriminator("account", "Project") + b"short", PROGRAM_ID))
    return home


def test_the_live_projects_figures(home: Path) -> None:
    shown = json.loads(chain("project", "show", 0, "--home", home, "--json").stdout)
    assert {
        name: shown[name] for name in ("metric", "convention", "baseline", "best", "raw_gain", "delta_percent")
    } == {
        "metric": "val_bpb",
        "convention": "reflected",
        "baseline": "2.667000",
        "best": "1.991456",
        "raw_gain": "0.675544",
        "delta_percent": "25.33",
    }
    assert (shown["next_price_lamports"], shown["supply"]) == (224_000, 124)
    assert (shown["miner_pool_minted"], shown["miner_pool_cap"]) == (1, 21_000_000)
    (step,) = shown["track_record"]
    assert (step["proposal"], step["metric"], step["gain"], step["miner"]) == (
        0,
        "1.991456",
        "0.675544",
        str(live.MINER),
    )
    assert [entry["malformed"] for entry in shown["malformed"]] == [str(live.PDAS.proposal(3))]
    assert shown["protocol"]["measurement"]["primaryMetric"]["name"] == "val_bpb"
    text = chain("project", "show", 0, "--home", home).stdout
    for words in (
        "Autoresearch MLX (ARMLX)",
        "best val_bpb       1.991456",
        "+25.33 %",
        "raw gain           0.675544",
        "0.000224 SOL",
        "1 of 21,000,000 minted",
        "track record (1 approved)",
        "2026-05-10 08:00",
        "malformed account",
        "training seconds budget       300",
        "spice",
    ):
        assert words in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_lists_show_what_cannot_be_read_and_go_on(home: Path) -> None:
    text = chain("project", "list", "--home", home).stdout
    assert "ARMLX" in text
    assert f"malformed account {live.PDAS.project(9)} of 13 bytes" in text
    listed = json.loads(chain("proposal", "list", "--home", home, "--json").stdout)
    assert [entry.get("id") for entry in listed] == [0, 1, 2, None]
    assert listed[3]["malformed"] == str(live.PDAS.proposal(3))


def test_a_proposals_scores_as_metrics(home: Path) -> None:
    shown = json.loads(chain("proposal", "show", 0, "--home", home, "--json").stdout)
    assert (shown["verified_aggregate_score"], shown["verified_metric"]) == (3_342_544, "1.991456")
    assert (shown["claimed_metric"], shown["claimed_gain_percent"]) == ("1.991456", "+25.33")
    text = chain("proposal", "show", 1, "--home", home).stdout
    assert "claimed metric               1.991456" in text
    assert "verified metric" not in text
    live.put(home, live.proposal_account(live.proposal(50, project_id=77)))
    orphan = json.loads(chain("proposal", "show", 50, "--home", home, "--json").stdout)
    assert (orphan["id"], orphan["metric"]) == (50, None)
    assert "no project 77" in orphan["scores_are_raw_because"]


def test_where_scores_mean_nothing_known_they_are_raw(tmp_path: Path) -> None:
    words = "matches no known convention for the baseline metric 2.5"
    live.publish(tmp_path, metrics=b'{"metric_value": 2.5}', proposals=[live.approved(0)])
    page = tmp_path / "page.html"
    text = chain("project", "show", 0, "--home", tmp_path, "--html", page).stdout
    assert "baseline 2,667,000, best 3,342,544" in text
    assert words in text
    assert "+675,544" in text
    assert words in page.read_text()
    assert "%" not in page.read_text().partition("Track record")[2].partition("Protocol")[0]
    shown = json.loads(chain("proposal", "show", 0, "--home", tmp_path, "--json").stdout)
    assert shown["metric"] is None
    assert words in shown["scores_are_raw_because"]


def _protocol(direction: str = "minimize") -> Any:
    return {"measurement": {"primaryMetric": {"name": "val_bpb", "direction": direction}}}


@pytest.mark.parametrize(
    ("metrics", "score", "direction", "kind"),
    [
        ('{"metric_value": 2.667}', 2_667_000, "minimize", "reflected"),
        ('{"metric_value": 2.667}', -2_667_000, "minimize", "negated"),
        ('{"metric_value": 0.91}', 910_000, "maximize", "plain"),
        ('{"metrics": {"val_bpb": 2.667}}', 2_667_000, "minimize", "reflected"),
        ('{"primaryMetric": {"value": 2.667}}', 2_667_000, "minimize", "reflected"),
        ('{"value": 9, "val_bpb": 2.667}', 2_667_000, "minimize", "reflected"),
    ],
)
def test_the_convention_is_inferred(metrics: str, score: int, direction: str, kind: str) -> None:
    found = infer(score, _protocol(direction), metrics.encode())
    assert found.convention
    assert (found.metric, found.convention.kind, found.source) == ("val_bpb", kind, "")


@pytest.mark.parametrize(
    ("protocol", "metrics"),
    [
        (None, "{}"),
        ([], "{}"),
        ({"measurement": []}, "{}"),
        (_protocol("sideways"), '{"metric_value": 2.667}'),
        (_protocol(), '{"metric_value": 2.5}'),
        (_protocol(), "BASELINE_METRIC=2.5"),
        (_protocol(), '{"metric_value": true}'),
        (_protocol(), '{"metric_value": "2.667"}'),
        (_protocol(), '{"metric_value": 1e400}'),
        (_protocol("maximize"), '{"metric_value": -2.667}'),
    ],
)
def test_or_refused(protocol: Any, metrics: str) -> None:
    with pytest.raises((InvalidData, InvalidBaseline)):
        infer(2_667_000, protocol, metrics.encode())


def test_a_project_of_the_official_client(tmp_path: Path) -> None:
    """Its baseline is a log: the page reads it as the miner and the verifier do, and says where the number is from."""
    home = official.home_with_project(tmp_path, negated=True)
    found = json.loads(chain("project", "show", 0, "--home", home, "--json").stdout)
    assert (found["convention"], found["baseline"], found["problem"]) == ("negated", "2.500000", None)
    assert found["baseline_source"] == "the log's val_bpb"
    assert "from the log's val_bpb" in chain("project", "show", 0, "--home", home).stdout


def test_a_claim_that_cannot_be_meant_has_no_gain() -> None:
    """Official miners claim +metric·10⁶ on a negated project too: that is no gain of 184 percent."""
    meaning = infer(-2_500_000, _protocol(), b"BASELINE_METRIC=2.5")
    assert meaning.text(2_100_000) == "2,100,000 (does not fit the convention)"
    assert meaning.percent(2_100_000) == "does not fit the convention"
    assert (meaning.text(-2_100_000), meaning.percent(-2_100_000)) == ("2.100000", "+16.00")
    unknown = replace(meaning, convention=None)
    assert (unknown.text(2_100_000), unknown.percent(1)) == ("2,100,000", "unknown")


def test_track_record_in_order_of_approval() -> None:
    late = live.approved(1, 2_900_000, submitted_at=50)
    early = live.approved(7, 2_700_000, submitted_at=90)  # submitted later, approved first: scores only rise
    steps = track_record([late, live.proposal(3), early], 2_667_000)
    assert [(step.proposal.id, step.gain, step.total) for step in steps] == [(7, 33_000, 33_000), (1, 200_000, 233_000)]


@pytest.mark.parametrize(
    ("ago", "place"),
    [(0, 34), (NOW % 86_400, 34), (NOW % 86_400 + 1, 33), (34 * 86_400, 0), (35 * 86_400, None), (-86_400, None)],
)
def test_days(ago: int, place: int | None) -> None:
    days = by_day([live.proposal(0, submitted_at=NOW - ago)], NOW)
    assert len(days) == 35
    assert [day.total for day in days] == [int(number == place) for number in range(35)]


@pytest.mark.parametrize("now", [-(2**63), 0, 2**63 - 1])
def test_a_clock_that_no_calendar_has(now: int) -> None:
    assert by_day([live.proposal(0, submitted_at=now)], now)[-1].day >= date(1970, 1, 1)


def test_bars_are_stacked_by_status_and_scaled() -> None:
    some = [live.proposal(n, ProposalStatus.REJECTED, submitted_at=NOW) for n in range(9)]
    some += [live.approved(9, submitted_at=NOW), live.approved(10, submitted_at=NOW - 86_400)]
    some += [live.approved(11 + n, submitted_at=NOW) for n in range(2)]
    lines = bars(by_day(some, NOW))
    assert lines[0].startswith("12 ┤")
    assert [line[-1] for line in lines[:7]] == ["░", "░", "░", "░", "░", "█", "─"]
    assert lines[-1].strip().startswith("2026-10-")


# --- the page ---


def test_the_page_is_self_contained_and_escaped(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    result = chain("project", "show", 0, "--home", home, "--html", page)
    assert str(page) in result.stderr
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&gt;&amp;[2J" in text
    for loads in ('http-equiv="refresh', "<link", "<img", "<iframe", "url(", "@import", " src=", " href="):
        assert loads not in text
    for words in ("1.991456", "+25.33 %", "0.675544", "0.000224 SOL", "21,000,000", "spice", "malformed account"):
        assert words in text
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]  # nothing half written beside it


@pytest.mark.parametrize("status", list(ProposalStatus))
def test_only_an_approved_proposal_has_a_verified_value(status: ProposalStatus) -> None:
    entry = replace(live.proposal(7, status), claimed_aggregate_score=2_700_000, verified_aggregate_score=2_600_000)
    raw = show.proposals([entry]).splitlines()[1].split()
    assert "2,700,000" in raw
    assert ("2,600,000" in raw) == (status is ProposalStatus.APPROVED)
    meant = show.proposals([entry], value=lambda score: f"{score / 10**6:.6f}").splitlines()[1].split()
    assert "2.700000" in meant
    assert ("2.600000" in meant) == (status is ProposalStatus.APPROVED)


def test_a_page_that_cannot_be_written(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["project", "show", "0", "--home", str(home), "--html", str(tmp_path / "file" / "page.html")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "Cannot write" in result.stderr
