"""The pages in docs/ say what the code does; `python -m tests.unit.test_docs` renders their tables again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tabulate import tabulate

from benchmarks import engine_agreement, overload, serving_load, serving_peers
from harness.criteria import Bound, BoundState, Criterion, Need
from harness.documented_criteria import DOCUMENTED
from harness.files import write_text_atomically
from harness.report.schema import SCHEMA_PATH
from harness.seal import KEY_VARIABLE
from harness.snapshots.check import SnapshotState
from harness.statistics import Proportion
from harness.verdict import EXIT_CODES, Decision, Outcome, Subject
from pipeline.config import TARGETS, UNCONSTRAINED, Style
from pipeline.data.formats import read_questions
from pipeline.files import HELD_OUT_QUESTIONS
from sabotage.picture import SYMBOLS
from tests.acceptance import (
    answers,
    crowd,
    test_coherence,
    test_deployment,
    test_endpoint,
    test_snapshots,
    test_style,
)
from tests.acceptance import conftest as acceptance
from tests.acceptance.client import TIMEOUT_S
from tests.unit.all_criteria import CRITERIA
from tests.unit.harness.conftest import Project

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
MOST_LINES = 130
"""Of one page, empty lines not counted."""
UNDER_LOAD_CLIENTS = crowd.CLIENT_COUNT
UNDER_LOAD_QUESTIONS = len(crowd.QUESTIONS) * len(Style)
SAMPLE_SIZES = (24, 36, 48, 120, 240)


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """A page without its line breaks, so that a phrase may be wrapped."""
    return " ".join(read(name).split())


def criteria_table() -> str:
    """Every criterion with its bounds, and what must be at hand before each applies."""
    rows = [
        (criterion.id, criterion.sentence, "<br>".join(map(_bound_cell, criterion.bounds)), _needs(criterion.needs))
        for criterion in CRITERIA
    ]
    return _table(("criterion", "what is promised", "bounds", "asked of"), rows)


def thresholds_table() -> str:
    """The thresholds that a target replaces."""
    rows = [
        (
            target.name,
            f"`{_memory_bound(target.peak_memory_limit_gib).describe()}`",
            f"{target.training_limit_s / 60:g} min",
        )
        for target in TARGETS.values()
    ]
    return _table(("target", "training.gpu_memory", "training.duration, 1600 examples"), rows)


def decisions_table() -> str:
    """For each bound on a share and some sample sizes, which counts hold and which are violations."""
    found = {(b.comparison, b.threshold, b.confidence) for c in CRITERIA for b in c.bounds if b.confidence is not None}
    bounds = [
        Bound("share", comparison, threshold, confidence=confidence)
        for comparison, threshold, confidence in sorted(found, key=str)
    ]
    rows = [(f"`{bound.limit}`", *(_decisive_counts(bound, trials) for trials in SAMPLE_SIZES)) for bound in bounds]
    return _table(("share", *(f"of {trials}" for trials in SAMPLE_SIZES)), rows)


TABLES = {"criteria": criteria_table, "thresholds": thresholds_table, "decisions": decisions_table}


def render(page: str) -> str:
    """The page with its generated tables as the code has them now."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"docs/criteria.md: the table {name} is not between one {begin.strip()} and one {end}")
        page = f"{page.partition(begin)[0]}{begin}{table()}{end}{page.partition(end)[2]}"
    return page


def _table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    headers = list(headers)
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _bound_cell(bound: Bound) -> str:
    return f"`{bound.describe()}`" + (f" ({_needs(bound.needs)})" if bound.needs else "")


def _needs(needs: tuple[Need, ...]) -> str:
    return " and ".join(sorted(map(str, needs), reverse=True)) or "everything"


def _memory_bound(limit_gib: float) -> Bound:
    memory = DOCUMENTED["training.gpu_memory"]
    (bound,) = Subject("any", True, {f"{memory.id}/peak_memory_gib": limit_gib}).bounds(memory)
    return bound


def _decisive_counts(bound: Bound, trials: int) -> str:
    states = {count: bound.state(Proportion(count, trials)) for count in range(trials + 1)}
    holding = [count for count, state in states.items() if state is BoundState.HOLDS]
    violating = [count for count, state in states.items() if state is BoundState.VIOLATED]
    return f"holds {_range(holding, trials)}, violated {_range(violating, trials)}"


def _range(counts: list[int], trials: int) -> str:
    if not counts:
        return "never"
    return f"from {counts[0]}" if counts[-1] == trials else f"to {counts[-1]}"


def test_the_tables_are_those_of_the_code() -> None:
    page = read("criteria.md")
    assert render(page) == page, "run: python -m tests.unit.test_docs"


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.id)
def test_every_criterion_has_a_section_that_quotes_it(criterion: Criterion) -> None:
    sections = re.split(r"^### ", read("criteria.md"), flags=re.MULTILINE)[1:]
    bodies = [body for heading, _, body in (section.partition("\n") for section in sections) if heading == criterion.id]
    assert len(bodies) == 1
    assert f'"{criterion.sentence}."' in " ".join(bodies[0].split())


def test_no_section_is_about_an_unknown_criterion() -> None:
    headings = re.findall(r"^### (.+)$", read("criteria.md"), flags=re.MULTILINE)
    assert sorted(headings) == sorted(criterion.id for criterion in CRITERIA)


@pytest.mark.parametrize(
    ("page", "phrase"),
    [
        ("criteria.md", f"{len(read_questions(HELD_OUT_QUESTIONS))} held-out questions"),
        ("criteria.md", f"cap of {UNCONSTRAINED.max_new_tokens} tokens"),
        ("criteria.md", f"the first {acceptance.PRESET_QUESTIONS} with {len(acceptance.SAMPLING_SEEDS)} seeds"),
        ("criteria.md", f"{acceptance.COUNTERFACTUAL_QUESTIONS} questions with the two tokens' rows exchanged"),
        ("criteria.md", f"{acceptance.ADAPTER_OFF_QUESTIONS} questions without the adapter"),
        ("criteria.md", f"{answers.MIDPOINT_TOKENS:g} tokens"),
        ("criteria.md", f"seq-rep-4 of {answers.LOOPING_SEQ_REP_4}"),
        ("criteria.md", f"{answers.LONG_REPEAT_TOKENS} tokens said twice"),
        ("criteria.md", f"{test_style.TIMED_QUESTIONS} questions in each style"),
        ("criteria.md", f"{test_coherence.REFERENCES_PER_STYLE} answers of the training data in each style"),
        ("criteria.md", f"{len(test_deployment.AT_ONCE)} requests at once"),
        ("criteria.md", f"{len(test_deployment.MALFORMED)} malformed requests"),
        ("criteria.md", f"{UNDER_LOAD_CLIENTS} clients ask {UNDER_LOAD_QUESTIONS} held-out questions"),
        ("criteria.md", f"reads the {UNDER_LOAD_QUESTIONS} answers of"),
        ("verdicts.md", f"{UNDER_LOAD_QUESTIONS} questions from {UNDER_LOAD_CLIENTS} clients"),
        ("verdicts.md", f"{test_endpoint.QUESTION_COUNT} held-out questions in each style"),
        ("verdicts.md", f"{len(test_deployment.MALFORMED)} malformed requests"),
        ("verdicts.md", f"{TIMEOUT_S} seconds"),
        ("goldens.md", f"at most {test_snapshots.LOSS_MAX_DELTA:g} in any step"),
        ("goldens.md", f"at most {test_snapshots.LOSS_MEAN_DELTA:g} on average"),
        ("goldens.md", f"at most {test_snapshots.LOG_PROBABILITY_TOLERANCE:g} nats"),
        ("goldens.md", f"first {test_snapshots.QUESTION_COUNT} held-out questions"),
    ],
)
def test_figures_in_the_text_are_those_of_the_tests(page: str, phrase: str) -> None:
    assert phrase in prose(page)


def test_exit_statuses_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([A-Z]+) \| (\d+) \|", read("verdicts.md"), flags=re.MULTILINE)
    assert {name: int(status) for name, status in rows} == {str(name): code for name, code in EXIT_CODES.items()}


@pytest.mark.parametrize(("page", "words"), [("verdicts.md", Outcome), ("goldens.md", SnapshotState)])
def test_every_outcome_and_state_has_a_row(page: str, words: Iterable[str]) -> None:
    tables = re.findall(r"^\| ([A-Z_]+) \| [A-Za-z]", read(page), flags=re.MULTILINE)
    assert tables == [str(word) for word in words]


def test_the_signs_of_the_matrix_are_those_that_are_drawn() -> None:
    rows = re.findall(r"^\| (.?) \| ([A-Z_]+) \|$", read("sabotage.md"), flags=re.MULTILINE)
    assert {outcome: sign for sign, outcome in rows} == SYMBOLS


def test_the_key_is_named_as_the_code_names_it() -> None:
    assert f"`{KEY_VARIABLE}`" in read("verdicts.md")


def test_options_and_variables_exist() -> None:
    folders = (ROOT / "harness", ROOT / "pipeline", ROOT / "tests" / "gpu", ROOT / "tests" / "benchmarks")
    sources = [ROOT / "conftest.py", *(path for folder in folders for path in folder.rglob("*.py"))]
    known = set(re.findall(r'"(--[a-z-]+|VERBOSITY_[A-Z_]+)"', "\n".join(p.read_text("utf-8") for p in sources)))
    named = {name for page in PAGES for name in re.findall(r"(--[a-z]\S*[a-z]|VERBOSITY_[A-Z_]+)", read(page.name))}
    foreign = {"--junitxml", "--snapshot-update", "--dist"}  # of pytest, syrupy and pytest-xdist
    foreign |= {"--served-model-name", "--max-model-len", "--api-key"}  # of vLLM
    assert named - known == foreign | {"--config_file", "--num_processes"}  # and of accelerate


def test_the_schema_is_linked() -> None:
    assert f"](../{SCHEMA_PATH.relative_to(ROOT).as_posix()})" in read("report.md")


def example() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", read("own-criteria.md"), flags=re.MULTILINE | re.DOTALL)
    return str(code)


@pytest.fixture
def with_example(pytester: pytest.Pytester) -> Project:
    """A project whose documented criteria all pass, with the example as one more file."""
    project = Project(pytester)
    project.write()
    project.pytester.path.joinpath("tests", "test_directness.py").write_text(example(), encoding="utf-8")
    return project


def answering(project: Project, text: str, count: int = 120) -> None:
    """Every answer of the judged model is `text`."""
    project.conftest = f"""
        from types import SimpleNamespace
        from pipeline.config import Style

        @pytest.fixture
        def answers(target):
            return SimpleNamespace(unconstrained={{s: [SimpleNamespace(text={text!r})] * {count} for s in Style}})
    """


@pytest.mark.parametrize(
    ("text", "count", "outcome", "decision"),
    [
        ("It limits requests.", 120, "PASS", "ACCEPTED"),
        ("Sure! It limits requests.", 120, "FAIL", "REJECTED"),
        ("It limits requests.", 20, "UNDECIDED", "INCOMPLETE"),
    ],
)
def test_the_example_is_required_and_judged(
    with_example: Project, text: str, count: int, outcome: str, decision: str
) -> None:
    answering(with_example, text, count)
    assert with_example.run().ret == EXIT_CODES[Decision(decision)]
    assert with_example.criterion("style.directness")["outcome"] == outcome
    assert with_example.document()["decision"] == decision


@pytest.mark.parametrize(
    ("arguments", "decision"),
    [(("-k", "directness"), "INCOMPLETE"), (("-x",), "REJECTED"), (("-n", "1"), "REJECTED")],
)
def test_selecting_never_makes_a_verdict_better(
    with_example: Project, arguments: tuple[str, ...], decision: str
) -> None:
    answering(with_example, "It limits requests." if decision == "INCOMPLETE" else "Sure!")
    with_example.run(*arguments)
    assert with_example.document()["decision"] == decision


def shown(served: str, name: str, to_markdown: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """A committed result of serving, once its table is found to be its own and the page's."""
    folder = ROOT / "results" / served / "serving"
    document: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    table = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert table == to_markdown(document)
    assert table in read("engines.md")
    assert document["provenance"]["git_dirty"] is False
    return document


@pytest.mark.parametrize("served", ["smollm2-135m", "mistral-7b-v0.3-synthetic"])
def test_the_engines_under_load_are_the_committed_ones(served: str) -> None:
    document = shown(served, "serving", serving_load.to_markdown)
    picture = (ROOT / "results" / served / "serving" / "serving.svg").read_text(encoding="utf-8")
    assert picture == serving_load.draw(document)
    assert document["rows"] == serving_load.summarise(document["cells"])


def test_the_overload_is_the_committed_one() -> None:
    shown("smollm2-135m", "overload", overload.to_markdown)


def test_the_peers_are_the_committed_ones() -> None:
    shown("smollm2-135m", "peers", serving_peers.to_markdown)


def test_the_engines_agree_as_the_page_says() -> None:
    document = shown("smollm2-135m", "agreement", lambda found: engine_agreement.to_markdown(found["ways"]))
    assert engine_agreement.disagreements(document["ways"]) == []


def test_the_generated_requests_are_the_committed_ones() -> None:
    document = json.loads((ROOT / "results" / "abuse" / "abuse.json").read_text(encoding="utf-8"))
    assert sum(row["requests"] for row in document["rows"]) == document["requests"] > 10_000
    assert tabulate(document["rows"], headers="keys", tablefmt="github") in read("serving.md")
    assert f"{document['requests']:,} requests" in read("serving.md")
    assert document["provenance"]["git_dirty"] is False


def links(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")) if ":" not in link]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert links(page)
    for link in links(page):
        path, _, anchor = link.partition("#")
        leads_to = page.parent / path if path else page
        assert leads_to.exists(), link
        assert not anchor or anchor in anchors(leads_to), link


def test_the_index_names_every_page() -> None:
    named = re.findall(r"^- \[.+\]\(([^)]+)\)", read("README.md"), flags=re.MULTILINE)
    assert sorted(named) == [page.name for page in PAGES if page.name != "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_stay_short(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert sum(bool(line) for line in lines) <= MOST_LINES


if __name__ == "__main__":
    write_text_atomically(DOCS / "criteria.md", render(read("criteria.md")))
