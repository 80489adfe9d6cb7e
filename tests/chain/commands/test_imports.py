"""What a command imports: help no chain at all, commands on the embedded network no HTTP client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SOURCE = """
import sys
from {package} import main
try:
    main(sys.argv[1:], standalone_mode=False)
except SystemExit:
    pass
print("imported", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def imported(package: str, *arguments: str) -> set[str]:
    source = _SOURCE.format(package=package)
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("package", ["chain.commands.main", "miner.commands.main", "verifier.cli"])
def test_help_imports_no_heavy_library(package: str) -> None:
    heavy = {"solders", "httpx", "httpx2", "solana", "rich", "cryptography", "numpy", "mlx", "pyarrow", "libcst"}
    assert not heavy & imported(package, "--help")


@pytest.mark.parametrize("arguments", [("project", "list"), ("wallet", "show", "miner")])
def test_local_commands_import_no_http_client(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found = imported("chain.commands.main", *arguments, "--home", str(tmp_path))
    assert "solders" in found
    assert not {"httpx", "httpx2", "solana"} & found
