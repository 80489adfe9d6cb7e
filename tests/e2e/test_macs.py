"""The first command on a factory Mac: an installer that works there, and wheels for every Python that we allow."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [minor for minor in range(9, 20) if f"3.{minor}.1" in SpecifierSet(PYPROJECT["requires-python"])]
OLDEST = (14, 0)  # that MLX has wheels for


def needed(minor: int) -> Iterator[dict[str, object]]:
    """The locked packages that a Mac with this Python installs."""
    mac = {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin", "os_name": "posix"}
    mac |= {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.1", "implementation_name": "cpython"}
    mac |= {"platform_python_implementation": "CPython", "extra": ""}

    def wanted(entry: dict[str, str]) -> bool:
        return "marker" not in entry or Marker(entry["marker"]).evaluate(mac)

    left, seen = ["openresearch-miner"], set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for package in LOCK:
            forks = package.get("resolution-markers", [])
            if package["name"] == name and (not forks or any(Marker(marker).evaluate(mac) for marker in forks)):
                left += [entry["name"] for entry in package.get("dependencies", []) if wanted(entry)]
                if "wheels" in package:
                    yield package


@pytest.mark.parametrize("minor", PYTHONS)
def test_a_mac_builds_nothing(minor: int) -> None:
    """Neither a compiler nor headers are on a factory Mac; where wheels end, so does the range of Pythons."""
    platforms = list(mac_platforms(OLDEST, "arm64"))
    fits: set[Tag] = {*cpython_tags((3, minor), platforms=platforms)}
    fits |= {*compatible_tags((3, minor), f"cp3{minor}", platforms)}
    packages = list(needed(minor))
    assert {"mlx", "mlx-metal", "pyarrow", "tokenizers", "solders"} <= {str(p["name"]) for p in packages}
    for package in packages:
        wheels = [wheel["url"].rpartition("/")[2] for wheel in package["wheels"]]  # type: ignore[attr-defined]
        assert any(parse_wheel_filename(name)[3] & fits for name in wheels), (package["name"], wheels[:3])


def test_pythons_end_where_wheels_end() -> None:
    assert PYTHONS == [11, 12, 13, 14]


def test_the_readme_leads_with_an_installer_that_a_factory_mac_has() -> None:
    """Apple's Python is 3.9 and Homebrew's refuses pip; curl and sh are always there."""
    first = re.findall(r"^    (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)[:2]
    assert first[0].startswith("curl -LsSf https://astral.sh/uv/install.sh | sh")
    assert first[1].startswith("uv run ")
    for name in ("README.md", "docs/mac.md"):
        assert not re.search(r"^ +(?:python3? -m )?pip3? install", (ROOT / name).read_text(), re.MULTILINE)
