"""An HTML page that shows what a recording changed, to be read before it is committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from harness.files import write_text_atomically
from harness.snapshots.check import Recording
from harness.snapshots.extension import to_text

_CONTEXT_LINES = 3
_MOST_OPEN_LINES = 40

Kind = Literal["equal", "removed", "added"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Snapshot review</title><style>
:root { color-scheme: light dark; --line: light-dark(#bbb, #555); --head: light-dark(#f0f0f0, #2a2a2a);
        --gone: light-dark(#fbdada, #5c2424); --come: light-dark(#d5f2dc, #1f4a2b) }
body { background: light-dark(#fff, #181818); color: light-dark(#1a1a1a, #e6e6e6); font: 16px/1.5 system-ui, sans-serif;
       margin: 2rem auto; max-width: 80rem; overflow-wrap: anywhere; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; table-layout: fixed; width: 100% }
th, td { border: 1px solid var(--line); padding: .3rem .5rem; text-align: left; vertical-align: top }
th { background: var(--head) } th.name { width: 5rem }
td.code, p.code { font: 13px/1.4 ui-monospace, monospace; white-space: pre-wrap }
del { background: var(--gone) } ins { background: var(--come); text-decoration: none } .changed { font-weight: 600 }
</style></head><body>
<h1>Snapshot review</h1>
<p>{{ entries|length }} recorded. Commit a file only when each change has a reason.</p>
{% for entry in entries %}
<h2>{{ entry.test }}</h2>
<p>{{ entry.path }}: {{ entry.origin }}</p>
{% for answer in entry.answers %}
<h3>{{ answer.label }}</h3>
<table><thead><tr><th class="name"></th><th>old</th><th>new</th></tr></thead><tbody>
{% for row in answer.rows %}
<tr{% if row.changed %} class="changed"{% endif %}><th scope="row">{{ row.name }}</th><td>{{ row.old }}</td>
<td>{{ row.new }}</td></tr>
{% endfor %}
</tbody></table>
{% if answer.tokens %}<p class="code">{% for kind, text in answer.tokens -%}
{% if kind == "removed" %}<del>{{ text }}</del>{% elif kind == "added" %}<ins>{{ text }}</ins>
{%- else %}{{ text }}{% endif %} {% endfor %}</p>{% endif %}
{% endfor %}
{% if entry.lines %}
<details{% if entry.lines|length <= most_open_lines %} open{% endif %}><summary>{{ entry.lines|length }} lines</summary>
<table><thead><tr><th>old</th><th>new</th></tr></thead><tbody>
{% for old, new in entry.lines %}
<tr><td class="code">{% if old != new %}<del>{{ old }}</del>{% else %}{{ old }}{% endif %}</td>
<td class="code">{% if old != new %}<ins>{{ new }}</ins>{% else %}{{ new }}{% endif %}</td></tr>
{% endfor %}
</tbody></table></details>
{% endif %}
{% endfor %}
</body></html>
"""


@dataclass(frozen=True)
class _Row:
    name: str
    old: str
    new: str

    @property
    def changed(self) -> bool:
        return bool(self.old) and self.old != self.new


def write_review(recordings: Sequence[Recording], path: Path) -> Path:
    """Write a self-contained HTML page: old and new side by side, token by token where a value holds ``token_ids``.

    Args:
        recordings: What the run recorded.
        path: The page.

    Returns:
        ``path``.
    """
    # Imported here, so that only a run that recorded loads Jinja2.
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_PAGE).render(
        entries=[_entry(recording) for recording in recordings], most_open_lines=_MOST_OPEN_LINES
    )
    return write_text_atomically(path, page)


def token_changes(old: Sequence[int], new: Sequence[int]) -> list[tuple[Kind, str]]:
    """Return the runs of equal, removed and added tokens, in order."""
    runs: list[tuple[Kind, str]] = []
    # With the default ``autojunk``, frequent tokens of a long answer would never match.
    for tag, old_from, old_to, new_from, new_to in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            runs.append(("equal", _spaced(old[old_from:old_to])))
        else:
            runs += [("removed", _spaced(old[old_from:old_to]))] if old_to > old_from else []
            runs += [("added", _spaced(new[new_from:new_to]))] if new_to > new_from else []
    return runs


def line_changes(old: str, new: str) -> list[tuple[str, str]]:
    """Return changed lines side by side, with a few lines of context."""
    before, after = old.splitlines(), new.splitlines()
    rows: list[tuple[str, str]] = []
    for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(_CONTEXT_LINES):
        rows += [("...", "...")] if rows else []
        for _, old_from, old_to, new_from, new_to in group:
            rows += zip_longest(before[old_from:old_to], after[new_from:new_to], fillvalue="")
    return rows


def _entry(recording: Recording) -> dict[str, object]:
    old = None if recording.old is None else recording.old.get("value")
    new = recording.new["value"]
    before, after = dict(_answers(old)), dict(_answers(new))
    answers = [_answer(label, before.get(label), after.get(label)) for label in dict.fromkeys([*before, *after])]
    commit = str(recording.new["provenance"].get("git_commit"))
    previous = None if recording.old is None else recording.old["provenance"].get("git_commit")
    return {
        "test": recording.test,
        "path": recording.path,
        "origin": f"commit {commit}, {'recorded for the first time' if previous is None else f'before {previous}'}",
        "answers": answers,
        "lines": [] if answers else line_changes("" if old is None else _listed(old), _listed(new)),
    }


def _answers(value: Any, label: str = "answer") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the answers in a value: every mapping with ``token_ids``, labelled by the keys that lead to it."""
    if isinstance(value, Mapping) and isinstance(value.get("token_ids"), list):
        yield label, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _answers(inner, str(key) if label == "answer" else f"{label} / {key}")


def _answer(label: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, object]:
    sides = [{} if side is None else side for side in (old, new)]
    ids = [side.get("token_ids", []) for side in sides]
    lengths = ["" if side is None else str(len(side["token_ids"])) for side in (old, new)]
    grown = f" ({len(ids[1]) - len(ids[0]):+d})" if old is not None and new is not None else ""
    rows = [
        _Row("text", *(str(side.get("text", "")) for side in sides)),
        _Row("tokens", lengths[0], lengths[1] + grown if lengths[0] != lengths[1] else lengths[1]),
        _Row("finish reason", *(str(side.get("finish_reason", "")) for side in sides)),
    ]
    return {"label": label, "rows": rows, "tokens": token_changes(*ids) if old is not None else []}


def _listed(value: Any) -> str:
    """One line per number of a list, so that old and new steps line up."""
    return "\n".join(map(str, value)) if isinstance(value, list) else to_text(value)


def _spaced(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))
