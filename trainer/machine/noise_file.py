"""The file in which a machine keeps its noise records, by what each belongs to (`Bench.noise_key`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from common.files import write_atomic
from trainer.statistics.noise import InvalidComparison, NoiseRecord

MAX_BYTES = 1 << 18


def load_noise(path: Path) -> dict[str, NoiseRecord]:
    """A noise file's records by key; empty when there is no file, InvalidComparison when it is malformed."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    cure = f"Delete {path}; it will be measured again."
    if len(raw) > MAX_BYTES:
        raise InvalidComparison(f"{path} is larger than {MAX_BYTES} bytes.", cure)
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidComparison(f"{path} is not JSON.", cure) from error
    if not isinstance(data, dict):
        raise InvalidComparison(f"{path} must hold one JSON object.", cure)
    return {key: NoiseRecord.from_json(record) for key, record in data.items()}


def save_noise(path: Path, records: Mapping[str, NoiseRecord]) -> None:
    """Write all records atomically; a reader sees the old file or the new one."""
    document = {key: record.to_json() for key, record in records.items()}
    write_atomic(path, json.dumps(document, indent=1, sort_keys=True).encode())
