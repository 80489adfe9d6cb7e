"""How many small mutations of the decision modules their tests find: a sample of mutmut's mutants, drawn by a seed.

    uv run --with mutmut==3.8.1 python -m tests.mutation.sample [--each 15] [--seed 0] [MODULE ...]

The modules and their tests stand in pyproject.toml, [tool.mutmut]; `--each 0` tries every mutant. A mutant that runs
into mutmut's time limit counts as found. Survivors are listed; `mutmut show NAME` prints one. Exit status 1 if the
share found is below `--least` per cent.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

MUTANTS = Path("mutants")
SURVIVED, NO_TESTS = 0, (5, 33)  # mutmut's exit codes; any other of a mutant that ran is one that was found


def outcomes() -> Mapping[str, Mapping[str, int | None]]:
    """The exit code of each mutant's tests by module and name, None if they have not run."""
    files = sorted(MUTANTS.rglob("*.py.meta"))
    return {
        str(path.relative_to(MUTANTS)).removesuffix(".py.meta").replace("/", "."): codes
        for path in files
        if (codes := json.loads(path.read_text())["exit_code_by_key"])
    }


def draw(names: Mapping[str, Mapping[str, int | None]], each: int, seed: int) -> dict[str, list[str]]:
    """Up to `each` mutants of every module, all of them for 0."""
    drawn = {}
    for module, codes in names.items():
        rng = random.Random(f"{seed}/{module}")
        drawn[module] = sorted(rng.sample(sorted(codes), min(each or len(codes), len(codes))))
    return drawn


def mutmut(*names: str) -> None:
    """Run mutmut on the mutants of these names; it makes all that there are first."""
    done = subprocess.run([sys.executable, "-m", "mutmut", "run", *names], capture_output=True, text=True)
    if done.returncode and "nothing matches" not in done.stderr:
        sys.exit(f"mutmut failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as chain.money.score [default: all]")
    parser.add_argument("--each", type=int, default=15, help="mutants of each module, 0 for all [default: 15]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=0.0, help="per cent that must be found")
    options = parser.parse_args()
    mutmut("none")
    known = outcomes()
    if missing := set(options.modules) - set(known):
        parser.error(f"no mutants of {', '.join(sorted(missing))}; known are {', '.join(known)}")
    known = {module: codes for module, codes in known.items() if not options.modules or module in options.modules}
    drawn = draw(known, options.each, options.seed)
    mutmut(*(name for names in drawn.values() for name in names))
    found = tried = 0
    survivors: list[str] = []
    after = outcomes()
    for module, names in drawn.items():
        codes = {name: after[module][name] for name in names}
        left = [name for name, code in codes.items() if code == SURVIVED or code in NO_TESTS]
        ran = sum(code is not None for code in codes.values())
        print(f"{module:34} {ran - len(left):4} of {ran:4} found  ({len(known[module])} mutants)")
        found, tried, survivors = found + ran - len(left), tried + ran, survivors + left
    print("\nsurvived:", *survivors, sep="\n  ")
    print(f"\n{found} of {tried} found, {100 * found / max(tried, 1):.1f} %")
    if not tried or 100 * found / tried < options.least:
        sys.exit(1)


if __name__ == "__main__":
    main()
