"""Options that need an extra refuse with the line that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from common import extras, resources
from miner.commands.main import main


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.need("json", "png", "--png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(extras.ExtraMissing) as refused:
        extras.need("matplotlib", "png", "--png")
    assert refused.value.message == (
        "--png needs the package matplotlib, which is not installed. Install it with `uv sync --extra png`."
    )


def test_an_installed_command_is_told_of_its_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.shown("verifier check 0") == "uv run verifier check 0"
    monkeypatch.setattr(resources, "CHECKOUT", False)
    monkeypatch.setattr(extras, "CHECKOUT", False)
    assert resources.shown("verifier check 0") == "verifier check 0"
    assert "uv tool install '" in extras.install("png")


def test_png_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    home = Path(__file__).parents[2] / "docs" / "example"
    page = tmp_path / "page.html"
    arguments = ["report", "--offline", "--home", str(home), "--output", str(page), "--png", str(tmp_path / "c.png")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "Error: --png needs the package matplotlib, which is not installed. Install it with `uv sync --extra png`."
    ]
    assert not page.exists()
