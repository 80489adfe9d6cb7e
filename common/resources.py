"""Files that belong to the product but are no Python modules: configs/, prepare.py, the baseline train.py.

In a checkout they are read where they lie; a wheel carries copies in `common/data` (see pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).parent / "data"
ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
HARNESS = ROOT / "prepare.py"
