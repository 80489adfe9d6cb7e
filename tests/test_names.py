"""One name, one meaning: no public class name stands in two modules."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("chain", "common", "miner", "trainer", "verifier")


def _shared(root: Path) -> dict[str, list[str]]:
    """Public class names defined in more than one module under `root`, with those modules."""
    modules: defaultdict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    modules[node.name].add(str(path.relative_to(root)))
    return {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1}


def test_no_class_name_has_two_meanings() -> None:
    found = _shared(ROOT)
    listed = "\n".join(f"{name}: {', '.join(paths)}" for name, paths in sorted(found.items()))
    assert not found, f"Rename one of each:\n{listed}"


def test_a_name_in_two_modules_is_found(tmp_path: Path) -> None:
    for package, source in (
        ("chain", "class Point: ..."),
        ("miner", "class Point: ...\nclass _Own: ..."),
        ("common", ""),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "one.py").write_text(source)
    assert _shared(tmp_path) == {"Point": ["chain/one.py", "miner/one.py"]}
