"""Other people's tables: the shapes that are found in public repositories, with rows made up here."""

from __future__ import annotations

import pytest

from miner.proposers import tables
from miner.proposers.tables import Row

FIVE = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    "383abc4\t1.800000\t26.9\tkeep\tbaseline\n"
    "c67ad2b\t1.750000\t26.9\tkeep\tWEIGHT_DECAY 0.2 -> 0.05\n"
    "909dd50\t1.790000\t26.9\tdiscard\tlower noise with MATRIX_LR from 0.04 to 0.08\n"
    "4161af4\t0.000000\t0.0\tcrash\texp7: SiLU activation\n"
    "torn line\n"
)
SMALLER = "halve total batch size to 2^16"
SEVEN = (
    "commit\tval_bpb\tmemory_gb\ttok_per_sec\tnum_steps\tstatus\tdescription\n"
    "3087aec\t2.335670\t5.5\t37700\t180\tkeep\tbaseline\n"
    "81dd183\t2.294669\t5.5\t33477\t167\tkeep\thalve total batch size to 2^16\n"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            FIVE,
            [
                ("baseline", "keep", 1.8),
                ("WEIGHT_DECAY 0.2 -> 0.05", "keep", 1.75),
                ("lower noise with MATRIX_LR from 0.04 to 0.08", "discard", 1.79),
                ("exp7: SiLU activation", "crash", None),
            ],
        ),
        (SEVEN, [("baseline", "keep", 2.33567), (SMALLER, "keep", 2.294669)]),
        (
            SEVEN.replace("\n", "\r\n"),
            [("baseline", "keep", 2.33567), (SMALLER, "keep", 2.294669)],
        ),
        # no header, and rows that no longer keep to it
        ("a1b2c3d\t1.5\t4.4\tbest\tsmaller batch\n", [("smaller batch", "keep", 1.5)]),
        (FIVE.split("\n")[0] + "\n2026-08-03\ttag\t1.86\t157\tworse\twarm-up\n", [("warm-up", "discard", 1.86)]),
        ("not a table at all\n\x00\x00\t\t\t\t\n", []),
        ("", []),
    ],
)
def test_rows(text: str, expected: list[Row]) -> None:
    assert tables.rows(text) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("MATRIX_LR 0.03→0.04 (hypothesis: faster)", [("MATRIX_LR", 0.03, 0.04)]),
        ("reduce depth from 8 to 4", [("DEPTH", 8, 4)]),
        ("increase matrix LR to 0.04", [("MATRIX_LR", None, 0.04)]),
        (SMALLER, [("TOTAL_BATCH_SIZE", None, 65536)]),
        ("WEIGHT_DECAY=0.2 (up from 0.1)", [("WEIGHT_DECAY", 0.1, 0.2)]),
        ("TOTAL_BATCH_SIZE 2**18 -> 2**16", [("TOTAL_BATCH_SIZE", 262144, 65536)]),
        ("batch 16K->8K (too noisy)", [("BATCH", 16384, 8192)]),
        ("baseline", []),
        ("loss 1e999 -> 1e9999", []),
    ],
)
def test_steps(words: str, expected: list[object]) -> None:
    assert list(tables.steps(words)) == expected


def test_what_rows_say_weighs_little() -> None:
    found = tables.of_rows(tables.rows(FIVE), ["silu", "gelu"])
    assert [(c.name, c.old, c.new) for c in found] == [
        ("WEIGHT_DECAY", 0.2, 0.05),
        ("MATRIX_LR", 0.04, 0.08),
        ("edit:silu", None, None),
    ]
    assert [c.gain for c in found] == [pytest.approx(0.05), pytest.approx(-0.04), None]
    assert all(clue.weight == tables.HEARD for clue in found)
