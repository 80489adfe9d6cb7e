"""The worker that runs a graph: what it is given must be what was announced. Its results are in `test_measurement`."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.measurement import inside_graph


@pytest.mark.parametrize("rows", [3, 5])
def test_rows_are_as_many_as_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    source = tmp_path / "rows.i32"
    source.write_bytes(bytes(4 * rows * 3))
    with pytest.raises(ValueError, match=f"{3 * rows} tokens are not 4 rows of 3"):
        inside_graph.main("claim", "no graph", str(source), 4, 8, 2, 5)
    assert not (tmp_path / "out.f32").exists()
