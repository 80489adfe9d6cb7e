"""What a machine can do, line by line: Macs by their tools' output, and this machine in earnest."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from chain.commands.doctor import doctor, scrub
from common.checks import Check
from common.terminal import View
from miner.commands.main import main as miner
from tests.support import mac_only, require
from tests.trainer.machine import macs
from tests.trainer.machine.macs import BATTERY, GIB, MACS, PMSET, Mac
from trainer.doctor import examine, lines
from trainer.machine import hardware
from trainer.sandbox import Line
from verifier.cli import main as verifier

ASKING = sys.modules["trainer.doctor.examine"]
HELD = "Assertion status system-wide:\n   PreventUserIdleSystemSleep     1\n   PreventSystemSleep   1\n"
TOOLS = {
    "pmset -g assertions": HELD,
    "xcode-select -p": "/Library/Developer/CommandLineTools\n",
    "/usr/bin/git --version": "git version 2.39.5 (Apple Git-154)\n",
    "/opt/homebrew/bin/git --version": "git version 2.51.0\n",
}
GOOD = replace(MACS["M4 Max"], tools=TOOLS)


def asked(
    mac: Mac, monkeypatch: pytest.MonkeyPatch, home: Path, *proof: Line, git: str | None = "/usr/bin/git"
) -> dict[str, Check]:
    """The doctor on a Mac, with a sandbox that is proven as `proof` says, and `git` as PATH finds it."""
    macs.become(mac, monkeypatch, limits=(mac.memory * GIB * 3 // 4, mac.memory * GIB * 9 // 16))
    monkeypatch.setattr(ASKING, "run_tool", mac.tool)
    monkeypatch.setattr(ASKING, "_prove", lambda: list(proof or (Line("starts", True), Line("network", True))))
    monkeypatch.setattr(ASKING, "_speed", lambda: 81_234.5)
    monkeypatch.setattr("shutil.which", lambda name: git)
    monkeypatch.setattr("trainer.sandbox.macos.run_tool", mac.tool)
    monkeypatch.setattr("trainer.machine.awake.CAFFEINATE", "/usr/bin/true")
    return {check.name: check for check in examine(home, verifier=True, view=View(quiet=True))}


@pytest.mark.parametrize("name", MACS)
def test_every_mac_gets_an_answer(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mac = MACS[name]
    found = asked(replace(mac, tools={**TOOLS, **mac.tools}), monkeypatch, tmp_path)
    assert (found["machine"].state == "differs") is bool(mac.doubt)
    assert mac.doubt in found["machine"].found
    assert {"memory", "power", "heat", "sleep", "display", "python", "uv", "git", "speed", "data"} <= set(found)
    assert all(check.cure for check in found.values() if check.state == "missing")


def test_a_good_mac_lacks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = asked(GOOD, monkeypatch, tmp_path)
    assert {name for name, check in found.items() if check.state != "ok"} <= {"load"}
    assert "96.0 GiB for MLX, 72.0 GiB in one array" in found["memory"].found
    assert "held awake while it measures" in found["sleep"].found
    assert found["speed"].found == "81,234 tokens/s on metal, training a small model"


@pytest.mark.parametrize(
    ("tools", "name", "state", "words"),
    [
        ({"pmset -g batt": BATTERY}, "power", "differs", "battery"),
        ({"pmset -g": PMSET.format(sleep=1, displaysleep=10, low=1)}, "power", "differs", "low power"),
        ({"pmset -g assertions": ""}, "sleep", "differs", "after 1 min without input, and could not be held awake"),
        ({"pmset -g": PMSET.format(sleep=0, displaysleep=0, low=0)}, "sleep", "ok", "never sleeps"),
        ({"pmset -g": PMSET.format(sleep=1, displaysleep=0, low=0)}, "display", "ok", "never"),  # before macOS 26
        ({"sysctl -n iogpu.wired_limit_mb": "100000\n"}, "memory", "ok", "wired_limit_mb is set to 100000"),
        ({"xcode-select -p": ""}, "git", "missing", "not found"),  # /usr/bin/git would ask in a window
        ({"/usr/bin/git --version": ""}, "git", "missing", "not found"),
        (
            {"notifyutil -g com.apple.system.thermalpressurelevel": "com.apple.system.thermalpressurelevel 2\n"},
            "heat",
            "differs",
            "heat",
        ),
    ],
)
def test_what_a_mac_lacks(
    tools: dict[str, str], name: str, state: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = asked(replace(GOOD, tools={**TOOLS, **tools}), monkeypatch, tmp_path)[name]
    assert (found.state, words in found.found) == (state, True), found
    assert state == "ok" or found.cure


@pytest.mark.parametrize(("git", "words"), [("/opt/homebrew/bin/git", "2.51.0"), (None, "not found")])
def test_git_is_the_one_that_commands_run(
    git: str | None, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Homebrew's needs no command line tools of Apple's; a git outside PATH is none."""
    mac = replace(GOOD, tools={**TOOLS, "xcode-select -p": ""})
    assert words in asked(mac, monkeypatch, tmp_path, git=git)["git"].found


def test_macos_26_wants_the_display_to_sleep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"pmset -g": PMSET.format(sleep=1, displaysleep=0, low=0)}
    found = asked(replace(GOOD, os="26.1", tools={**TOOLS, **settings}), monkeypatch, tmp_path)["display"]
    assert (found.state, "displaysleep" in found.cure) == ("differs", True)


def test_a_sandbox_that_does_not_hold_shows_what_macos_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = "kernel[0:1] (Sandbox) Sandbox: python3.12(7) deny(1) iokit-open-user-client AGXDeviceUserClient\n"
    where = 'process == "kernel" AND eventMessage CONTAINS "Sandbox: python"'
    tools = {**TOOLS, f"log show --last 2m --style compact --predicate {where}": log}
    broken = Line("device", False, "Metal is not available", "The sandbox lacks something.")
    found = asked(replace(GOOD, tools=tools), monkeypatch, tmp_path, Line("starts", True), broken)
    assert found["sandbox: the device that MLX uses outside"].state == "missing"
    assert found["refused by macOS"].found == "iokit-open-user-client AGXDeviceUserClient"


def test_a_miner_may_do_without_a_sandbox_and_a_verifier_not() -> None:
    broken = [Line("network", False, "a listener was reached", "Judge nobody's code.")]
    assert [check.state for check in lines.sandbox(broken, needed=False)] == ["differs"]
    assert [check.state for check in lines.sandbox(broken, needed=True)] == ["missing"]


def test_rosetta_is_no_python_for_a_mac() -> None:
    assert lines.python("3.12.1", "x86_64", "Darwin").state == "missing"
    assert lines.python("3.12.1", "x86_64", "Linux").state == "ok"


# --- the command ---


def _three(home: Path, view: View) -> Iterator[Check]:
    yield Check("machine", "ok", f"in {Path.home()}/x")
    yield Check("sandbox", "missing", "no", "Mend it.")


def test_the_report_is_written_and_holds_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = doctor("miner", "miner", _three)
    found = CliRunner().invoke(command, ["--home", str(tmp_path), "--network", "embedded", "--json"])
    assert found.exit_code == 3, found.output
    document = json.loads(found.stdout)
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert document == {**report, "report": str(tmp_path / "doctor.json")}
    assert [check["name"] for check in report["checks"]] == ["machine", "sandbox", "network", "wallet"]
    assert report["checks"][0]["found"] == "in ~/x"
    assert (report["complete"], report["program"]) == (False, "miner")


def test_a_wallet_on_a_real_network_is_named_without_its_address(tmp_path: Path) -> None:
    command = doctor("miner", "miner", lambda home, view: iter([Check("machine", "ok", "x")]))
    arguments = ["--home", str(tmp_path), "--network", "http://127.0.0.1:9", "--report", str(tmp_path / "r.json")]
    found = CliRunner().invoke(command, arguments)
    assert found.exit_code == 3, found.output  # the node does not answer
    by_name = {check["name"]: check for check in json.loads((tmp_path / "r.json").read_text())["checks"]}
    assert by_name["network"]["state"] == "missing"
    assert "127.0.0.1" not in json.dumps(by_name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{Path.home()}/a", "~/a"),
        ("wallet 7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU here", "wallet … here"),
        ("key sk-ant-api03-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "key …"),
        ("mlx 0.32.4 macosx_15_0_arm64", "mlx 0.32.4 macosx_15_0_arm64"),
        ("a4b1c2d3e4f50617", "a4b1c2d3e4f50617"),
    ],
)
def test_scrub(text: str, expected: str) -> None:
    assert scrub(text) == expected


def test_the_users_name_is_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "annabel")
    monkeypatch.setattr("platform.node", lambda: "annabels-mac.local")
    assert scrub("/Users/annabel/x on annabels-mac.local") == "/Users/USER/x on HOST"


@pytest.mark.parametrize("program", [miner, verifier], ids=["miner", "verifier"])
def test_both_programs_have_it(program: object) -> None:
    assert "doctor" in program.commands  # type: ignore[attr-defined]


def test_this_machine(tmp_path: Path) -> None:
    require(sys.platform == "darwin" or shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")
    found = CliRunner().invoke(miner, ["doctor", "--home", str(tmp_path), "--network", "embedded", "--json"])
    checks = {check["name"]: check for check in json.loads(found.stdout)["checks"]}
    assert {check["state"] for name, check in checks.items() if name.startswith("sandbox")} == {"ok"}
    assert checks["machine"]["found"].startswith(hardware.fingerprint().hardware_class)
    assert "openresearch-miner" in checks["versions"]["found"]


@mac_only
def test_this_mac_says_when_it_sleeps(tmp_path: Path) -> None:
    found = {check.name: check for check in examine(tmp_path, verifier=False, view=View(quiet=True))}
    assert "does not say" not in found["sleep"].found
