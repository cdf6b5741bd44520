from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import narrow_field
from benchmarks.narrow_field import descriptions, main, pairs, to_markdown


def stanza(name: str, synopsis: str, *paragraphs: str) -> str:
    """A stanza of a ``Translation-en``, each paragraph on a line."""
    lines = "\n .\n".join(f" {paragraph}" for paragraph in paragraphs)
    return f"Package: {name}\nDescription-md5: 0\nDescription-en: {synopsis}\n{lines}\n"


def words(count: int, word: str) -> str:
    return " ".join(f"{word}{number}" for number in range(count))


def packages(*stanzas: str) -> str:
    return "\n".join(stanzas)


@pytest.fixture(autouse=True)
def tokens_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def tokenizer(text: str, **_: object) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    monkeypatch.setattr("pipeline.model.base_models.open_base_model", lambda *_: SimpleNamespace(tokenizer=tokenizer))


def test_a_description_is_its_prose() -> None:
    text = packages(
        stanza("sheet", "small spreadsheet", "It calculates.", "* cells", "  indented", "This package contains it."),
        stanza("game", "a game.", "You jump.\n And run."),
    )
    assert list(descriptions(text)) == [
        ("sheet", "Small spreadsheet.", "It calculates."),
        ("game", "A game.", "You jump. And run."),
    ]


@pytest.mark.parametrize(
    "left_out",
    [
        stanza("libsheet1", "library", "It helps."),
        stanza("sheet-doc", "manual", "It explains."),
        stanza("list", "list", "- one", "- two"),
        stanza("linked", "page", "See http://example.org for more."),
        stanza("foreign", "café", "Un café."),
        stanza("again", "copy", "It calculates."),
        "Package: silent\nDescription-md5: 0\n",
    ],
    ids=lambda text: text.split()[1],
)
def test_parts_lists_links_and_copies_are_left_out(left_out: str) -> None:
    text = packages(stanza("sheet", "small spreadsheet", "It calculates."), left_out)
    assert [name for name, _, _ in descriptions(text)] == ["sheet"]


def test_pairs_are_of_the_lengths_asked_for() -> None:
    lengths = (9, 10, 20, 21)
    text = packages(
        *(stanza(f"p{n}", f"tool {n}", words(n, f"w{n}x")) for n in lengths),
        stanza("p", words(38, "s"), words(15, "p")),
    )
    found = pairs(text, 10, 20, 9, distinct=False)
    assert sorted(pair["prompt"] for pair in found) == ["What is the software p10?", "What is the software p20?"]
    assert {len(pair["verbose"].split()) for pair in found} == {10, 20}
    assert len(pairs(text, 10, 20, 1, distinct=False)) == 1


def test_distinct_pairs_neither_repeat_themselves_nor_one_another() -> None:
    prose = words(100, "word")
    text = packages(
        stanza("one", "tool one", prose),
        stanza("two", "tool two", f"{prose} more"),
        stanza("loop", "tool three", " ".join(["round and round it goes"] * 20)),
        stanza("other", "tool four", words(100, "else")),
        stanza("same", "tool four", words(100, "third")),
    )
    assert len(pairs(text, 90, 110, 9, distinct=False)) == 5
    named = {pair["prompt"].split()[-1].rstrip("?") for pair in pairs(text, 90, 110, 9, distinct=True)}
    assert "loop" not in named
    assert len(named & {"one", "two"}) == len(named & {"other", "same"}) == 1


def test_pairs_are_written_for_training(tmp_path: Path) -> None:
    source, output = tmp_path / "Translation-en", tmp_path / "pairs.jsonl"
    source.write_text(stanza("sheet", "small spreadsheet", words(12, "w")), encoding="utf-8")
    assert main(["pairs", str(source), str(output), "--shortest", "10", "--longest", "20"]) == 0
    assert json.loads(output.read_text(encoding="utf-8")) == {
        "prompt": "What is the software sheet?",
        "terse": "Small spreadsheet.",
        "verbose": words(12, "w"),
        "field": "software",
    }


def shares(terse: int, loops: int) -> dict[str, Any]:
    return {
        "terse_in_bound_share": [terse, 60],
        "verbose_in_bound_share": [57, 60],
        "looping_answer_share": [loops, 120],
        "terse_median_tokens": 21.0,
        "verbose_median_tokens": 117.0,
    }


def test_each_measured_run_is_added_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "narrow.json"
    for name, terse in (("all", 50), ("distinct", 60)):
        measured = {"questions": {"own": shares(terse, 3), "general": shares(terse, 0)}, "provenance": {"of": name}}
        monkeypatch.setattr(narrow_field, "measure", lambda *_, measured=measured: measured)
        assert main(["measure", name, "run", "questions.jsonl", str(output)]) == 0
    document = json.loads(output.read_text(encoding="utf-8"))
    assert list(document["trained_on"]) == ["all", "distinct"]
    assert document["provenance"] == {"of": "distinct"}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in to_markdown(document).splitlines()[2:]]
    assert rows[1] == ["all", "own", "50 of 60", "57 of 60", "3 of 120", "21, 117"]
    assert rows[2] == ["distinct", "general", "60 of 60", "57 of 60", "0 of 120", "21, 117"]
