"""One name, one meaning: no public class name stands in two modules."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("chain", "common", "miner", "trainer", "verifier")

# Names that still await their renaming. Whoever renames one takes it out of here; nothing is ever added.
SHARED = frozenset({"Block"})


def _shared(root: Path) -> dict[str, list[str]]:
    """Public class names defined in more than one module under `root`, with those modules."""
    modules: defaultdict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    modules[node.name].add(str(path.relative_to(root)))
    return {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1}


def _listed(found: dict[str, list[str]]) -> str:
    return "\n".join(f"{name}: {', '.join(paths)}" for name, paths in sorted(found.items()))


def test_no_class_name_has_two_meanings() -> None:
    new = {name: paths for name, paths in _shared(ROOT).items() if name not in SHARED}
    assert not new, f"Rename one of each:\n{_listed(new)}"


def test_the_list_of_exceptions_shrinks() -> None:
    done = SHARED - _shared(ROOT).keys()
    assert not done, f"Take these out of SHARED, each now has one meaning: {', '.join(sorted(done))}"


def test_a_name_in_two_modules_is_found(tmp_path: Path) -> None:
    for package, source in (
        ("chain", "class Point: ..."),
        ("miner", "class Point: ...\nclass _Own: ..."),
        ("common", ""),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "one.py").write_text(source)
    assert _shared(tmp_path) == {"Point": ["chain/one.py", "miner/one.py"]}
