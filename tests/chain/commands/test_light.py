"""What a command that works locally need not load: no HTTP client, no view, no key derivation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import local

HEAVY = ("httpx", "rich", "numpy", "cryptography", "asyncio", "ssl", "http.server", "chain.irys.node", "libcst")
MONEY = ("chain.money.client", "chain.program.instructions", "chain.program.events")
PROBE = """
import sys
from {module} import main
sys.argv = {words!r}
try:
    main()
finally:
    print("loaded", *[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("module", "words", "other"),
    [
        ("chain.commands.main", ["chain", "project", "list"], (*MONEY, "chain.commands.token")),
        ("chain.commands.main", ["chain", "--help"], ("solders",)),
        ("miner.commands.main", ["miner", "--help"], ("solders", "miner.session.start")),
        ("miner.commands.main", ["miner", "run", "--help"], ("solders", "miner.session.start")),
        ("miner.commands.main", ["miner", "status"], ("chain.network.embedded",)),
        ("verifier.cli", ["verifier", "report", "--offline"], ("chain.network.embedded", "mlx", "chain.pages.html")),
    ],
)
def test_a_local_command_loads_nothing_heavy(
    module: str, words: list[str], other: tuple[str, ...], tmp_path: Path
) -> None:
    options = [] if "--help" in words else ["--home", str(tmp_path)]
    heavy = (*HEAVY, *other)
    if "project" in words:  # the first command of a home makes its network, with transactions
        with local.connect(tmp_path):
            pass
    code = PROBE.format(module=module, words=[*words, *options], heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded"
