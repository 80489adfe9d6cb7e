"""A protocol from outside as sections: generic, bounded, and nothing in it that steers a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import InvalidData
from chain.pages import document
from chain.pages.document import Row, Section, sections, words
from chain.pages.overview import parse_json
from common.text import multiline, printable
from tests.chain import live

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def test_the_live_protocol_section_by_section() -> None:
    found = {section.title: section.rows for section in sections(json.loads(live.PROTOCOL))}
    assert list(found)[:3] == ["general", "meta", "environment"]
    assert {"immutable harness", "execution", "measurement", "safety", "archetype extensions"} <= found.keys()
    assert Row(0, "command", ("uv run train.py",)) in found["execution"]
    assert Row(1, "exclude compilation from budget", ("yes",)) in found["execution"]
    assert Row(0, "allowed globs", ("train.py",)) in found["mutable surface"]
    assert Row(1, "peak vram mb", ()) in found["measurement"]  # an entry of a list by its name


def test_fields_that_nobody_knows_are_shown() -> None:
    found = sections({"novel": {"deepThing": [{"a": 1}, {"name": "x", "b": [True, None]}]}, "plain": 7, "empty": {}})
    assert found == [
        Section("general", (Row(0, "plain", ("7",)),)),
        Section(
            "novel",
            (
                Row(0, "deep thing", ()),
                Row(1, "1", ()),
                Row(2, "a", ("1",)),
                Row(1, "x", ()),
                Row(2, "name", ("x",)),
                Row(2, "b", ("yes", "none")),
            ),
        ),
        Section("empty", ()),
    ]
    assert sections([1, 2]) == [Section("document", (Row(0, "content", ("1", "2")),))]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("plain – ünïcödé 漢字", "plain – ünïcödé 漢字"),
        ("\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
        ("a\u202eb\u200bc\u2066d", "abcd"),  # right to left, zero width, isolate
        ("one\ntwo\tthree\r", "one two three"),
        ("\ud800x", "x"),
        ("\x9b2J\x00", "2J"),
        ("a\u2028b", "a b"),
    ],
)
def test_what_steers_a_terminal_is_gone(text: str, kept: str) -> None:
    assert printable(text) == kept


def test_long_text_is_cut_and_lines_kept_where_asked() -> None:
    assert printable("x" * 3_000) == "x" * 199 + "…"
    assert multiline("a\nb\x1b\r\nc") == "a\nb\nc"
    assert multiline("x" * 3_000, 2_000) == "x" * 1_999 + "…"


@pytest.mark.parametrize(("name", "shown"), [("hardTimeoutSeconds", "hard timeout seconds"), ("ml_train", "ml train")])
def test_names_as_words(name: str, shown: str) -> None:
    assert words(name) == shown


def test_a_huge_document_is_bounded() -> None:
    rows = [row for section in sections({f"s{n}": {"x": [{"y": n}] * 300} for n in range(50)}) for row in section.rows]
    assert len(rows) < 2 * document.MAX_ROWS
    deep: Any = {"end": 1}
    for _ in range(30):
        deep = {"in": deep}
    assert ("(nested too deeply to show)",) in [row.values for section in sections(deep) for row in section.rows]


@settings(max_examples=40, deadline=None)
@given(JSON)
def test_any_document_becomes_clean_rows(value: object) -> None:
    for section in sections(value):
        for text in [section.title, *(text for row in section.rows for text in (row.name, *row.values))]:
            text.encode()
            assert all(character == "\n" or character.isprintable() or character.isspace() for character in text)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"NaN", b"[" * 40 + b"]" * 40, b"[" * 10**5, b"1" * 5_000])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidData):
        parse_json(data)
