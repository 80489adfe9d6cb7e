"""Which edits of the library fit a script, and which of those run: each is rehearsed, as before a trial.

    uv run python -m tests.benchmarks.bench_edits [trainer/train.py ...]

A rehearsal is two tiny steps on the CPU and a look at the logits (`miner.proposers.edits.rehearsal`). Without arguments
it takes today's baseline and the two shapes of script that the tests hold. It exits with 1 if an edit that fits fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common.resources import ROOT
from common.text import error_line
from miner.proposers.edits import rehearsal
from miner.proposers.edits.catalogue import CATALOGUE
from miner.proposers.edits.patterns import DoesNotFit

SHAPES = ROOT / "tests" / "miner" / "proposers" / "scripts"
DEFAULT = (ROOT / "trainer" / "train.py", SHAPES / "classic.py.txt", SHAPES / "decaying.py.txt")


def rehearse(source: str, before: str) -> str:
    """The line that says what went wrong, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text(rehearsal.script(source, before))
        done = subprocess.run(
            [sys.executable, "train.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=rehearsal.SECONDS + 60,
            check=False,
        )
    if done.returncode == 0 and "val_bpb" in done.stdout:
        return ""
    return error_line(done.stderr) or error_line(done.stdout) or "it printed nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", type=Path, default=DEFAULT)
    failed = 0
    for path in parser.parse_args().scripts:
        source, fit, ran = path.read_text(), 0, 0
        for edit in CATALOGUE:
            try:
                changed = edit(source)
            except DoesNotFit as why:
                print(f"  {edit.name:22} does not fit: {why}")
                continue
            wrong = rehearse(changed, source)
            print(f"  {edit.name:22} {'runs' if not wrong else f'FAILS: {wrong}'}", flush=True)
            fit, ran = fit + 1, ran + (not wrong)
        print(f"{path}: {fit} of {len(CATALOGUE)} edits fit, {ran} of those run")
        failed += fit - ran
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
