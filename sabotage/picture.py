"""The matrix of criterion by fault as JSON, Markdown and a heat map."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from acceptance.criteria import DOCUMENTED
from harness.files import write_text_atomically
from pipeline.plotting import to_svg
from sabotage.faults import FAULTS

SYMBOLS = {"PASS": "\u00b7", "FAIL": "F", "UNDECIDED": "?", "NOT_RUN": "-", "NOT_APPLICABLE": "", "NOT_JUDGED": "~"}
_COLOURS = {
    "PASS": "#DCEBF5",
    "FAIL": "#D55E00",
    "UNDECIDED": "#E69F00",
    "NOT_RUN": "#BBBBBB",
    "NOT_APPLICABLE": "#FFFFFF",
    "NOT_JUDGED": "#EEEEEE",
}


def summarise(
    faults: Sequence[Mapping[str, Any]],
    healthy: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The matrix as a document: every outcome, how often the gate was wrong, what must be run, and the bounds."""
    from sabotage.criteria import BOUNDS, younger  # heavy, and drawing needs none of it

    run = {fault["name"] for fault in faults}
    seeable = [fault for fault in faults if not fault.get("blind_spot")]
    criteria = [*DOCUMENTED, *sorted(BOUNDS.keys() - DOCUMENTED.keys())]
    return {
        "criteria": criteria,
        "bounds": {id_: dict(BOUNDS[id_]) for id_ in criteria},
        "faults": list(faults),
        "healthy": list(healthy),
        "fault_count": len(seeable),
        "faults_not_run": [name for name in FAULTS if name not in run],
        "to_repeat": {name_of(trial): missing for trial in [*faults, *healthy] if (missing := younger(trial))},
        "caught_count": sum(fault["caught"] for fault in seeable),
        "unexpected_count": sum(bool(fault["unexpected"]) for fault in faults),
        "false_accept_count": sum(fault["decision"] == "ACCEPTED" for fault in seeable),
        "healthy_count": len(healthy),
        "false_reject_count": sum(run["decision"] != "ACCEPTED" for run in healthy),
        "criteria_without_fault": sorted(set(criteria) - {id_ for fault in faults for id_ in fault["catches"]}),
    }


def name_of(trial: Mapping[str, Any]) -> str:
    """A fault's name, or the name of a healthy repeat."""
    return str(trial["name"]) if "name" in trial else f"healthy-{trial['seed']}"


def to_markdown(document: Mapping[str, Any]) -> str:
    """The matrix as one table, the criteria numbered as in the list above it."""
    criteria, healthy = document["criteria"], document["healthy"]
    numbers = [str(number) for number in range(1, len(criteria) + 1)]
    lines = [
        f"{document['caught_count']} of {document['fault_count']} faults caught, {document['false_accept_count']}"
        f" accepted; {document['false_reject_count']} of {document['healthy_count']} healthy runs not accepted.",
        "",
        *_blind_spots(document),
        *([f"Not run yet: {', '.join(document['faults_not_run'])}.", ""] if document["faults_not_run"] else []),
        *_to_repeat(document),
        *(f"{number}. {id_}" for number, id_ in zip(numbers, criteria, strict=True)),
        "",
        f"**F** must fail and did, F failed as a consequence, {SYMBOLS['PASS']} pass, - not run, ? undecided, ~ a"
        " criterion younger than the trial, empty: does not apply to random weights.",
        "",
        f"| fault | what is broken | {' | '.join(numbers)} |",
        "|---|---" + "|---" * len(criteria) + "|",
    ]
    for fault in document["faults"]:
        cells = [_cell(document, fault, id_) for id_ in criteria]
        seen = f" ([seen]({fault['seen']}))" if fault["seen"] else ""
        lines.append(f"| {fault['name']} | {fault['what']}{seen} | {' | '.join(cells)} |")
    if healthy:
        judged = [[run["outcomes"][id_] for run in healthy if id_ in run["outcomes"]] for id_ in criteria]
        passed = [f"{outcomes.count('PASS')}/{len(outcomes)}" for outcomes in judged]
        lines.append(f"| (healthy) | nothing: runs that pass | {' | '.join(passed)} |")
    return "\n".join(lines) + "\n"


def _blind_spots(document: Mapping[str, Any]) -> list[str]:
    """The faults that no criterion claims to catch, and those among them that were caught all the same."""
    blind = [fault for fault in document["faults"] if fault.get("blind_spot")]
    missed = [f"{fault['name']} ({fault['blind_spot']})" for fault in blind if not fault["caught"]]
    caught = [f"{fault['name']} (by {', '.join(_failed(fault))})" for fault in blind if fault["caught"]]
    lines = (("Not caught, and known", missed), ("Known as blind spots, and caught", caught))
    return [line for said, names in lines if names for line in (f"{said}: {'; '.join(names)}.", "")]


def _failed(fault: Mapping[str, Any]) -> list[str]:
    return [id_ for id_, outcome in fault["outcomes"].items() if outcome == "FAIL"]


def _to_repeat(document: Mapping[str, Any]) -> list[str]:
    """The trials that a younger criterion could change, together by the criteria's numbers."""
    groups: dict[str, list[str]] = {}
    for name, missing in document["to_repeat"].items():
        numbers = ", ".join(str(document["criteria"].index(id_) + 1) for id_ in missing)
        groups.setdefault(numbers, []).append(name)
    lines = [f"To repeat, being older than {numbers}: {', '.join(names)}." for numbers, names in groups.items()]
    return [line for pair in zip(lines, [""] * len(lines), strict=True) for line in pair]


def _outcome(document: Mapping[str, Any], fault: Mapping[str, Any], id_: str) -> str:
    """A criterion that did not judge a trial and could not change it does not apply to the trial's weights."""
    is_stale = id_ in document["to_repeat"].get(fault["name"], ())
    return str(fault["outcomes"].get(id_, "NOT_JUDGED" if is_stale else "NOT_APPLICABLE"))


def _cell(document: Mapping[str, Any], fault: Mapping[str, Any], id_: str) -> str:
    symbol = SYMBOLS[_outcome(document, fault, id_)]
    return f"**{symbol}**" if id_ in fault["catches"] else symbol


def draw(document: Mapping[str, Any]) -> str:
    """The matrix as a heat map (SVG); a frame marks what must fail."""
    size = (9.5, 2.2 + 0.24 * len(document["faults"]))
    return to_svg(partial(_draw_map, document), title="Criterion by fault", salt="sabotage", size=size, font_size=9)


def _draw_map(document: Mapping[str, Any], canvas: Any) -> None:
    from matplotlib.patches import Rectangle

    criteria, faults = document["criteria"], document["faults"]
    framed: dict[str, Any] = {"edgecolor": "black", "linewidth": 1.6, "zorder": 2}
    axes = canvas.add_subplot()
    for row, fault in enumerate(faults):
        for column, id_ in enumerate(criteria):
            colour = _COLOURS[_outcome(document, fault, id_)]
            edge = framed if id_ in fault["catches"] else {"edgecolor": "white"}
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, **edge))
    axes.set_xlim(0, len(criteria))
    axes.set_ylim(len(faults), 0)
    axes.set_yticks([row + 0.5 for row in range(len(faults))], [fault["name"] for fault in faults])
    axes.set_xticks([column + 0.5 for column in range(len(criteria))], criteria, rotation=60, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    handles = [Rectangle((0, 0), 1, 1, facecolor=_COLOURS[name], edgecolor="#888888") for name in SYMBOLS]
    handles.append(Rectangle((0, 0), 1, 1, facecolor="none", edgecolor="black", linewidth=1.6))
    canvas.legend(handles, [*SYMBOLS, "must fail"], loc="outside lower center", ncols=7, frameon=False)


def write_matrix(document: Mapping[str, Any], folder: Path) -> int:
    """Write matrix.json, .md and .svg; return 1 unless every fault was run and the gate was always right."""
    write_text_atomically(folder / "matrix.json", json.dumps(document, indent=1, sort_keys=True) + "\n")
    markdown = to_markdown(document)
    write_text_atomically(folder / "matrix.md", markdown)
    write_text_atomically(folder / "matrix.svg", draw(document))
    print(markdown)
    for fault in document["faults"]:
        is_missed = not (fault["caught"] or fault.get("blind_spot"))
        if is_missed or fault["unexpected"]:
            print(f"{fault['name']}: caught {fault['caught']}, unexpected {fault['unexpected']}, {fault['outcomes']}")
    wrong = ("unexpected_count", "faults_not_run", "to_repeat", "false_reject_count", "criteria_without_fault")
    return int(document["caught_count"] != document["fault_count"] or any(document[name] for name in wrong))
