"""What this machine remembers of a project's snapshot (`trainer.judging.ladder`): the values of its latest runs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from common.files import write_atomic
from trainer.judging.ladder import Known
from trainer.measurement.bench import Bench

MAX_BYTES = 1 << 18
MAX_VALUES = 16


def known(bench: Bench, hours: float) -> Known:
    """What is remembered of the snapshot's runs; nothing where the file is not there or not ours."""
    values, at = _read(_path(bench)).get(_key(bench), ((), 0.0))
    return Known(values, fresh=bool(values) and 0 <= time.time() - at < hours * 3600)


def keep(bench: Bench, values: Sequence[float]) -> None:
    """Keep the snapshot's values of this check in the place of older ones."""
    entries = {name: {"values": list(old), "at": at} for name, (old, at) in _read(_path(bench)).items()}
    entries[_key(bench)] = {"values": list(values)[-MAX_VALUES:], "at": time.time()}
    write_atomic(_path(bench), json.dumps(entries, indent=1, sort_keys=True).encode())


def _path(bench: Bench) -> Path:
    return bench.home / "ladder.json"


def _key(bench: Bench) -> str:
    return f"{bench.noise_key}/{bench.data_snapshot}/{bench.environment.packages_digest}"


def _read(path: Path) -> dict[str, tuple[tuple[float, ...], float]]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_BYTES))
        return {
            str(key): (tuple(float(value) for value in entry["values"]), float(entry["at"]))
            for key, entry in document.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # it is measured anew
