"""The page that shows what a recording changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.snapshots.check import Recording
from harness.snapshots.review import line_changes, token_changes, write_review


def recording(old: Any, new: Any) -> Recording:
    documents = [
        None if value is None else {"value": value, "provenance": {"git_commit": commit}}
        for value, commit in ((old, "aaa111"), (new, "bbb222"))
    ]
    assert documents[1] is not None
    return Recording("test_one::test_a", "golden/small/cpu/test_one/test_a.json", documents[0], documents[1])


def answer(text: str, ids: list[int], reason: str = "eos") -> dict[str, object]:
    return {"text": text, "token_ids": ids, "token_count": len(ids), "finish_reason": reason, "top5": []}


def page(tmp_path: Path, *recordings: Recording) -> str:
    text = write_review(recordings, tmp_path / "results" / "review.html").read_text(encoding="utf-8")
    return re.sub(r"\s*\n\s*", "", text)


def test_answers_stand_beside_each_other_with_what_changed(tmp_path: Path) -> None:
    old = {"terse: Why?": answer("It is so.", [1, 2, 3]), "verbose: Why?": answer("Same.", [4])}
    new = {"terse: Why?": answer("It was.", [1, 9, 3, 5], "length"), "verbose: Why?": answer("Same.", [4])}
    text = page(tmp_path, recording(old, new))
    assert "commit bbb222, before aaa111" in text
    assert '<tr class="changed"><th scope="row">text</th><td>It is so.</td><td>It was.</td></tr>' in text
    assert '<tr class="changed"><th scope="row">tokens</th><td>3</td><td>4 (+1)</td></tr>' in text
    assert '<tr class="changed"><th scope="row">finish reason</th><td>eos</td><td>length</td></tr>' in text
    assert re.search(r">1\s*<del>2</del>\s*<ins>9</ins>\s*3\s*<ins>5</ins>", text)
    assert '<tr><th scope="row">text</th><td>Same.</td><td>Same.</td></tr>' in text


def test_answers_that_came_or_went_are_shown(tmp_path: Path) -> None:
    text = page(tmp_path, recording({"gone": answer("Old.", [1])}, {"come": answer("New.", [2])}))
    assert '<th scope="row">text</th><td>Old.</td><td></td>' in text
    assert '<th scope="row">text</th><td></td><td>New.</td>' in text


def test_other_values_are_compared_line_by_line(tmp_path: Path) -> None:
    text = page(tmp_path, recording([3.5, 2.5, 1.5], [3.5, 2.75, 1.5]))
    assert "<del>2.5</del>" in text
    assert "<ins>2.75</ins>" in text
    assert "<del>3.5</del>" not in text
    first = page(tmp_path, recording(None, [0.25]))
    assert "recorded for the first time" in first
    assert "<ins>0.25</ins>" in first


def test_the_page_needs_nothing_else_and_runs_nothing_that_a_model_wrote(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    text = page(tmp_path, recording({script: answer(script, [1])}, {script: answer(script, [2])}))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"\b(src|href)=|url\(|@import", text)


def test_every_recording_has_its_place(tmp_path: Path) -> None:
    text = page(tmp_path, recording([1], [2]), recording(None, answer("Alone.", [1])))
    assert "2 recorded." in text
    assert text.count("<h2>") == 2
    assert "Alone." in text


def test_token_changes_are_in_order_and_complete() -> None:
    old, new = [7] * 300 + [1, 2], [7] * 300 + [2, 3]
    assert token_changes(old, new) == [
        ("equal", " ".join(["7"] * 300)),
        ("removed", "1"),
        ("equal", "2"),
        ("added", "3"),
    ]


def test_unchanged_lines_are_left_out() -> None:
    old = "\n".join(map(str, range(40)))
    rows = line_changes(old, old.replace("\n5\n", "\nfive\n").replace("\n35\n", "\n"))
    assert ("5", "five") in rows
    assert ("35", "") in rows
    assert ("...", "...") in rows
    assert ("20", "20") not in rows
    assert line_changes(old, old) == []
