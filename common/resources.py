"""Files that belong to the product but are no Python modules: configs/, prepare.py, the baseline train.py.

In a checkout they are read where they lie; a wheel carries copies in `common/data` (see pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).parent / "data"
CHECKOUT = not _PACKAGED.is_dir()  # else an installed wheel
ROOT = Path(__file__).resolve().parent.parent if CHECKOUT else _PACKAGED
CONFIGS = ROOT / "configs"
HARNESS = ROOT / "prepare.py"


def shown(command: str) -> str:
    """A command line as the reader would type it: through uv in a checkout, by its name where it is installed."""
    return f"uv run {command}" if CHECKOUT else command
