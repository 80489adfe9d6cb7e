"""Try the attacks on any verifier that judges a train.py by a command.

    python -m tests.attacks.run [--only NAME] [--honest FILE] [--approved REGEX] -- COMMAND...

COMMAND runs once for each script of `tests.attacks.cases`, with `{file}` replaced by its path. It approves when it ends
with 0, or, with `--approved`, when what it prints holds the expression. No attack may be approved, and `--honest`, a
train.py that truly is better than the project's best, must be. One line for each, and 1 as the exit status if any was
judged wrongly. This repository's own verifier, on a project of yours:

    python -m tests.attacks.run --honest better.py -- verifier check --candidate {file} --home HOME --project 0

The scripts use only the names of `prepare`: Tokenizer, make_dataloader, evaluate_bpb, MAX_SEQ_LEN, TIME_BUDGET.
Archives and chain artifacts are no scripts, and are tried by `tests/attacks/test_attacks.py` alone.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.attacks import cases

SECONDS = 3600  # for one verdict


def scripts() -> dict[str, str]:
    """The attacks that are a script, by name, with this machine's paths in them."""
    found = (*cases.EMBEDDED, *cases.KNOWN, *cases.OWN, *cases.LONG)
    home = str(Path.home())
    return {attack.name: attack.source.replace("@HOME@", home).replace("@USER@", home) for attack in found}


def approves(command: Sequence[str], file: Path, approved: re.Pattern[str] | None) -> tuple[bool, str]:
    """Whether the command approves this file, and the last line it printed."""
    try:
        done = subprocess.run(
            [part.replace("{file}", str(file)) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {SECONDS} s"
    said = approved.search(done.stdout) is not None if approved else done.returncode == 0
    return said, (done.stdout.strip().splitlines() or [""])[-1][:120]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="attacks whose name holds this")
    parser.add_argument("--honest", type=Path, help="a train.py that must be approved")
    parser.add_argument("--approved", type=re.compile, help="what the command prints when it approves")
    parser.add_argument("command", nargs="+", help="the verifier's command, with {file} in it")
    given = parser.parse_args()
    if not any("{file}" in part for part in given.command):
        parser.error("The command names no {file}: put it where the path of a train.py goes.")
    tried = {name: source for name, source in scripts().items() if given.only in name}
    if not tried:
        parser.error(f"No attack's name holds {given.only!r}.")
    wanted = dict.fromkeys(tried, False)
    if given.honest:
        tried["honest"], wanted["honest"] = given.honest.read_text(), True
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        file = Path(folder) / "train.py"
        for name, source in tried.items():
            file.write_text(source)
            begin = time.monotonic()
            said, words = approves(given.command, file, given.approved)
            right = said is wanted[name]
            wrong += not right
            verdict = f"{'approved' if said else 'not approved'}, {'right' if right else 'WRONG'}"
            print(f"{name:<32} {verdict:<22} {time.monotonic() - begin:5.0f} s  {words}", flush=True)
    print(f"{len(tried)} tried, {wrong} judged wrongly")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
