"""The pages: nothing generated is stale, links lead somewhere, and what they show to the reader works."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from docs.blocks import BLOCKS
from docs.build import pages, render, rendered
from harness.criteria import Criterion
from harness.seal import KEY_VARIABLE
from harness.snapshots.check import SnapshotState
from harness.verdict import EXIT_CODES, Decision, Outcome
from pipeline.data.formats import FORMATS, find_sources, read_examples
from sabotage.picture import SYMBOLS
from tests.unit.all_criteria import CRITERIA
from tests.unit.harness.conftest import Project

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*pages(), *(ROOT / name for name in ("CHANGELOG.md", "golden/README.md", "results/README.md"))]
PAGES.append(ROOT / "pipeline" / "assets" / "DATASHEET.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_nothing_that_is_generated_is_stale() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in rendered() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run: make docs"


def test_every_generated_block_stands_in_a_page() -> None:
    shown = {name for page in pages() for name in re.findall(r"<!-- ([\w-]+): begin -->", page.read_text("utf-8"))}
    assert shown == BLOCKS.keys()


def test_a_block_without_an_end_or_of_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text, reason in (("<!-- pins: begin -->\n", "counterpart: pins"), ("<!-- pinz: begin -->\n{}", "called pinz")):
        page.write_text(text.format("<!-- pinz: end -->"))
        with pytest.raises(ValueError, match=reason):
            render(page)


def test_the_readme_fits_in_a_minute() -> None:
    assert len(read("README.md").splitlines()) <= 150
    assert len(read("README.md").encode()) <= 8192


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith(("http:", "https:"))]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        leads_to = page.parent / path if path else page
        assert leads_to.exists(), link
        assert not anchor or anchor in anchors(leads_to), link


def test_the_index_names_every_page() -> None:
    named = re.findall(r"^\| \[.+\]\(([^)]+)\)", read("docs/README.md"), flags=re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in DOCS.glob("*.md") if page.name != "README.md")


def test_the_readme_names_every_folder() -> None:
    tracked = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    for name in tracked | {"tests", "results", "golden", "constraints", "deploy"}:
        assert f"`{name}/" in read("README.md"), name


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.id)
def test_every_criterion_is_explained(criterion: Criterion) -> None:
    assert read("docs/criteria.md").splitlines().count(f"### {criterion.id}") == 1


def test_exit_statuses_are_those_of_the_code() -> None:
    for page in ("README.md", "docs/verdicts.md"):
        rows = re.findall(r"^\| ([A-Z]+) \| (\d+) \|", read(page), flags=re.MULTILINE)
        assert {name: int(status) for name, status in rows} == {str(name): code for name, code in EXIT_CODES.items()}


@pytest.mark.parametrize(("page", "words"), [("verdicts", Outcome), ("snapshots", SnapshotState)])
def test_every_outcome_and_state_has_a_row(page: str, words: Iterable[str]) -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| [A-Za-z]", read(f"docs/{page}.md"), flags=re.MULTILINE)
    assert rows == [str(word) for word in words]


def test_the_signs_of_the_matrix_are_those_that_are_drawn() -> None:
    rows = re.findall(r"^\| (.?) \| ([A-Z_]+) \|$", read("docs/sabotage.md"), flags=re.MULTILINE)
    assert {outcome: sign for sign, outcome in rows} == SYMBOLS


def test_options_and_variables_exist() -> None:
    folders = (ROOT / "acceptance", ROOT / "harness", ROOT / "pipeline", ROOT / "benchmarks", ROOT / "sabotage")
    sources = [ROOT / "conftest.py", *(path for folder in folders for path in folder.rglob("*.py"))]
    sources.append(ROOT / "tests" / "pinned_environment.py")
    known = set(re.findall(r'"(--[a-z-]+|VERBOSITY_[A-Z_]+)"', "\n".join(p.read_text("utf-8") for p in sources)))
    text = "\n".join(re.sub(r"<!--.*?-->", "", page.read_text("utf-8")) for page in pages())
    named = set(re.findall(r"(?<![\w|-])(--[a-z][a-z-]*[a-z]|VERBOSITY_[A-Z_]+)", text))
    foreign = {"--help", "--junitxml", "--snapshot-update", "--dist"}  # of argparse, pytest, syrupy and pytest-xdist
    foreign |= {"--served-model-name", "--max-model-len", "--api-key", "--data-parallel-size"}  # of vLLM
    foreign |= {"--file"}  # of docker compose
    foreign |= {"--enable-lora", "--lora-modules", "--interrupt", "--no-deps", "--no-binary"}  # vLLM, llama.cpp, pip
    foreign |= {"--config", "--num", "--nproc-per-node", "--host"}  # of accelerate, torchrun and locust
    assert named - known <= foreign
    assert KEY_VARIABLE in named


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w.-]+):(?!=)", read("Makefile"), flags=re.MULTILINE))
    text = "\n".join(page.read_text("utf-8") for page in pages())
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", text))
    assert named - targets == set()


def test_the_shown_formats_are_the_ones_that_are_read(tmp_path: Path) -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| `(\{.*\})` \|$", read("docs/data.md"), flags=re.MULTILINE)
    assert [name for name, _ in rows] == [known.name for known in FORMATS]
    for number, (_, row) in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(row, encoding="utf-8")
    assert [source.format.name for source in find_sources(tmp_path)] == [name for name, _ in rows]
    assert [example.style for example in read_examples(tmp_path)] == ["terse", "verbose", "terse", "verbose"]


def test_the_shown_set_is_the_one_that_is_tested() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", read("docs/own-set.md"), flags=re.MULTILINE | re.DOTALL)
    for name, code in zip(("extraction_criteria.py", "conftest.py", "test_extraction.py"), shown, strict=True):
        written = read(f"docs/examples/json_extraction/{name}")
        assert all(part in written for part in code.split("\n\n\n")), name
    assert len(shown[1].splitlines()) == 5


@pytest.fixture
def with_example(pytester: pytest.Pytester) -> Project:
    """A project whose documented criteria all pass, with the page's example as one more file."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", read("docs/own-criteria.md"), flags=re.MULTILINE | re.DOTALL)
    project = Project(pytester)
    project.write()
    project.pytester.path.joinpath("tests", "test_directness.py").write_text(code, encoding="utf-8")
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
