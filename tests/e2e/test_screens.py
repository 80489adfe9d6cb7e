"""Every page that a command writes, in one real browser: at three widths, light, dark and printed, and by axe-core."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chain.pages import html
from miner.commands.main import main
from miner.journal.journal import Session
from miner.journal.sessions import choose
from miner.report import material, page, summary
from miner.report.material import Material
from tests.chain.pages.test_leaders import PROPOSALS, overview
from tests.e2e.browser import Tab, browser
from tests.miner import growth, sessions
from tests.support import require
from verifier import report, report_page

AXE = Path(__file__).parents[1] / "peers" / "node_modules" / "axe-core" / "axe.min.js"
OTHER = "embedded-0-Another1"
WIDTHS = (390, 768, 1280)
MOST = 500_000  # bytes of a page
NAMES = (
    *("empty", "1", "40", "1000", "all failed", "compared", "compared, files"),
    *("verifier", "verifier, empty", "project", "project, empty"),
)

# What sticks out to the right, but for what scrolls within itself.
OVER = """(() => { const root = document.documentElement, inside = (box) => box.closest("pre, .scroll, svg") !== null;
  const over = [...document.body.querySelectorAll("*")].filter((box) => !inside(box) && box.getClientRects().length
    && box.getBoundingClientRect().right > root.clientWidth + 0.5).map((box) => box.tagName + "." + box.className);
  return [root.scrollWidth - root.clientWidth, over]; })()"""
# The ground that the whole page stands on.
DARK = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)) < 80"
GRAVE = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations
  .filter((one) => one.impact === "serious" || one.impact === "critical")
  .map((one) => [one.id, one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160))]))"""


def failed(gathered: Material) -> Material:
    """A session in which every trial crashed, the baseline's too."""
    made = Session()
    for number in range(4):
        about = {"hypothesis": f"DEPTH {number} -> {number + 1}", "fingerprint": str(number), "base": "0", "at": ""}
        made.apply({"event": "trial", **about, "number": number, "commit": str(number)})
        run = {
            "arm": "candidate",
            "val_bpb": None,
            "failure": "crash",
            "detail": "it ended with status 1",
            "seconds": 3.0,
        }
        made.apply({"event": "run", **run, "number": number, "memory_mb": None, "log": "", "at": ""})
        made.apply({"event": "decision", "number": number, "decision": "crash", "delta": None, "at": ""})
    return replace(gathered, session=made, summary=summary.summarize(made), exhibits={})


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one made-up session."""
    home = tmp_path_factory.mktemp("night")
    sessions.make(home)
    return home


def compared(folder: Path, *names: str) -> bytes:
    """The page of `miner compare` of two sessions of `folder`/two, or of two files of `folder`."""
    given = [str(folder / name) if name.endswith(".py") else name for name in names]
    done = CliRunner().invoke(
        main, ["compare", *given, "--home", str(folder / "two"), "--output", str(folder / "compared.html")]
    )
    assert done.exit_code == 0, done.output
    return (folder / "compared.html").read_bytes()


@pytest.fixture(scope="module")
def pages(night: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by name, as files."""
    folder = tmp_path_factory.mktemp("pages")
    gathered = material.gather(choose(night), None)
    sessions.make(folder / "one", trials=1)
    growth.make(folder / "many", 1_000)
    for name, trials in ((sessions.NAME, 12), (OTHER, 9)):
        sessions.make(folder / "two", trials=trials, seed=trials, name=name)
    for name, rate in (("a.py", 0.1), ("b.py", 0.2)):
        (folder / name).write_text(f"LR = {rate}\nDEPTH = 2\n")
    nothing = replace(gathered, session=Session(), summary=summary.summarize(Session()), exhibits={})
    judged = [
        report.Checked(
            f"2026-11-{day:02}T08:00:00Z", 0, day, kind, "improved", 0.02, 6, 2000.0, kind != "release", "ab" * 8
        )
        for day in range(1, 9)
        for kind in report.KINDS
    ]
    now = datetime(2026, 11, 29, tzinfo=UTC)
    verified = report.Report("devnet", 0, judged, ["proposal 7: a check was interrupted"], ["x"], [], 5000, "", now)
    explorer = "https://explorer.solana.com/address/{address}?cluster=devnet"
    made: dict[str, str | bytes] = {
        "empty": page.build(nothing),
        "1": page.build(material.gather(choose(folder / "one"), None)),
        "40": page.build(gathered),
        "1000": page.build(material.gather(choose(folder / "many"), None)),
        "all failed": page.build(failed(gathered)),
        "verifier": report_page.page(verified),
        "verifier, empty": report_page.page(report.gather(folder, "embedded", None)),
        "project": html.page(overview(PROPOSALS, explorer)),
        "project, empty": html.page(overview([], "")),
        "compared": compared(folder, sessions.NAME, OTHER),
        "compared, files": compared(folder, "a.py", "b.py"),
    }
    for name, document in made.items():
        (folder / f"{name}.html").write_bytes(document if isinstance(document, bytes) else document.encode())
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_complains_of_nothing(tab: Tab, pages: dict[str, Path], name: str) -> None:
    assert pages[name].stat().st_size < MOST
    for scheme in ("light", "dark"):
        tab.look(WIDTHS[0], scheme)
        tab.open(pages[name].as_uri())
        for width in WIDTHS:
            tab.look(width, scheme)
            assert tab.run(OVER) == [0, []], (scheme, width)
        assert tab.run(DARK) == (scheme == "dark")
    tab.look(794, media="print")  # A4 at 96 dpi
    assert tab.run(OVER) == [0, []]
    assert tab.complaints == []


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(tab: Tab, pages: dict[str, Path], name: str) -> None:
    require(AXE.exists(), "the packages of tests/peers (npm ci --ignore-scripts --prefix tests/peers)")
    for scheme, width, rules in (("light", 1280, ""), ("dark", 390, "runOnly: ['color-contrast'], ")):
        tab.look(width, scheme)
        tab.open(pages[name].as_uri())
        tab.run("[...document.querySelectorAll('.trials td button')].slice(0, 2).forEach((part) => part.click())")
        tab.run(AXE.read_text(encoding="utf-8") + "; 0")
        assert tab.run(GRAVE.replace("{", "{" + rules, 1)) == [], (scheme, width)


def test_a_served_page_takes_over_what_is_new_and_keeps_the_readers_place(
    tab: Tab, night: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(night, home)
    command = [sys.executable, "-m", "miner.commands.main", "report", "--serve", "--port", "0", "--offline", "--json"]
    process = subprocess.Popen([*command, "--home", str(home)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told: dict[str, Any] = json.loads("".join(process.stdout.readline() for _ in range(4)))
        tab.look(1280)
        tab.open(told["url"])
        tab.run("window.mine = 1; document.querySelector('#t30 button').click()")
        tab.run("document.querySelector('#t20').scrollIntoView({behavior: 'instant'})")
        before = tab.run("[document.querySelector('#t20').getBoundingClientRect().top, scrollY > 100]")
        assert "open" in tab.run("document.querySelector('#t44 .word').textContent")
        with choose(home).journal.open("ab") as journal:
            decided = {"event": "decision", "number": 44, "decision": "discard", "reason": "", "delta": -0.01}
            at = {"low": -0.02, "high": 0.0, "p": 0.4, "at": "2026-11-25T09:00:00Z"}
            more = {
                "event": "trial",
                "number": 45,
                "hypothesis": "DEPTH 2 -> 3",
                "proposer": "tune",
                "fingerprint": "f",
            }
            commit = {"commit": "c", "base": "b", "at": "2026-11-25T09:00:01Z"}
            journal.write("".join(json.dumps(line) + "\n" for line in (decided | at, more | commit)).encode())
        tab.run("renew()")
        assert tab.run("document.querySelector('#t45 .idea').textContent") == "DEPTH 2 -> 3"
        assert "discarded" in tab.run("document.querySelector('#t44 .word').textContent")
        assert tab.run("[window.mine, document.querySelector('#t30 button').ariaExpanded]") == [1, "true"]
        after = tab.run("[document.querySelector('#t20').getBoundingClientRect().top, scrollY > 100]")
        assert after == [pytest.approx(before[0], abs=1.0), True]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        tab.run("renew()")
        assert tab.run("document.body.hasAttribute('data-lost')")
    finally:
        process.kill()
        process.wait()
