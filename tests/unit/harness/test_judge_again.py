"""A run is judged again from the answers that it kept: equally, by other criteria, and never by edited answers."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acceptance.judge_command import JUDGE
from harness.seal import KEY_VARIABLE

CRITERIA = """
    from harness.criteria import Bound, Criterion, Need
    from harness.criteria_set import CriteriaSet

    def short_answers(answers):
        lengths = {answer["question"]: len(answer["token_ids"]) for answer in answers}
        return {
            "longest_tokens": max(lengths.values()),
            "short_share": {question: length < 50 for question, length in lengths.items()},
        }

    def criterion(id_, *bounds):
        return Criterion(id_, "a sentence", bounds, "a test")

    def shortness(limit):
        return criterion("answers.short", Bound("longest_tokens", "<", limit), Bound("question_count", ">=", 2))

    SPEED = criterion("answers.fast", Bound("seconds", "<", 2.0, "s"))
    OTHER = criterion("answers.polite", Bound("rude_count", "==", 0))
    KEPT = {"answers.short": short_answers}
    OWN = CriteriaSet("own", (shortness(50), SPEED), from_answers=KEPT)
    STRICT = CriteriaSet("strict", (shortness(30), SPEED), from_answers=KEPT)
    LOOSE = CriteriaSet("loose", (shortness(90), criterion("answers.fast", Bound("seconds", "<", 9.0))))
    MORE = CriteriaSet("more", (shortness(50), SPEED, OTHER), from_answers=KEPT)
    FEWER = CriteriaSet("fewer", (shortness(50),), from_answers=KEPT)
    UNREADABLE = {"answers.short": lambda answers: answers[0]["n"]}
    BROKEN = CriteriaSet("broken", (shortness(50), SPEED), from_answers=UNREADABLE)
    OTHERWISE = {"answers.short": lambda answers: {"longest_tokens": 41}}
    RECOUNTED = CriteriaSet("recounted", (shortness(50), SPEED), from_answers=OTHERWISE)
    LEARNED = Criterion("answers.fast", "a sentence", SPEED.bounds, "a test", (Need.LEARNED_WEIGHTS,))
    UNLEARNED = CriteriaSet("unlearned", (shortness(50), LEARNED), from_answers=KEPT)
"""
CONFTEST = """
    import hashlib
    import pytest
    from own_criteria import OWN

    def pytest_acceptance_provenance():
        digest = hashlib.sha256(b"asked.jsonlfirst").hexdigest()
        return {"questions": {"file": "asked.jsonl", "sha256": digest, "count": 2}}

    def pytest_acceptance_criteria():
        return OWN
"""
TESTS = """
    import pytest
    from own_criteria import short_answers

    pytestmark = pytest.mark.subject(name="a/b", learned=True)
    ANSWERS = [
        {"question": question, "text": "x " * length, "token_ids": [7] * length, "finish_reason": "eos"}
        for question, length in (("first", 20), ("second", 40))
    ]

    @pytest.mark.criterion("answers.short")
    def test_short(measured, identify):
        identify("a/b", {"adapter_sha256": "abc", "style_token_ids": (1, 2)})
        measured.keep(ANSWERS)
        measured.record(question_count=2, **short_answers(ANSWERS))

    @pytest.mark.criterion("answers.fast")
    def test_fast(measured):
        measured.record(seconds=1.0)
"""
Judge = Callable[..., int]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the project, whose sets of criteria are installed; returns the folder of its results."""
    sets = ("own", "strict", "loose", "more", "fewer", "broken", "recounted", "unlearned")
    (pytester.path / "own_criteria.py").write_text(textwrap.dedent(CRITERIA), encoding="utf-8")
    installed = pytester.path / "own-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n", encoding="utf-8")
    entries = "".join(f"{name} = own_criteria:{name.upper()}\n" for name in sets)
    (installed / "entry_points.txt").write_text(f"[verbosity.criteria]\n{entries}", encoding="utf-8")
    monkeypatch.syspath_prepend(pytester.path)
    # Other inner runs in this process import modules of the same name.
    monkeypatch.delitem(sys.modules, "own_criteria", raising=False)

    def run(tests: str = TESTS, expected: int = 0, conftest: str = CONFTEST) -> Path:
        pytester.makeconftest(textwrap.dedent(conftest))
        pytester.makepyfile(test_own=textwrap.dedent(tests))
        assert pytester.runpytest_inprocess("-p", "no:cacheprovider").ret == expected
        return pytester.path / "acceptance-results"

    return run


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    def judge(results: Path, *options: str) -> int:
        parser = argparse.ArgumentParser()
        JUDGE.configure(parser)
        return JUDGE.run(parser.parse_args([str(results), "--output", str(tmp_path / "again"), *options]))

    return judge


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def outcomes(folder: Path) -> dict[str, str]:
    [subject] = read(folder / "acceptance.json")["subjects"]
    return {entry["id"]: entry["outcome"] for entry in subject["criteria"]}


def test_a_run_is_judged_again_to_the_same_document(run: Callable[..., Path], judge: Judge, tmp_path: Path) -> None:
    results = run()
    assert judge(results) == 0
    before, after = read(results / "acceptance.json"), read(tmp_path / "again" / "acceptance.json")
    origin = after.pop("judged_again_from")
    assert after == before
    assert origin["from_answers"] == ["a/b: answers.short"]
    assert origin["from_measurements"] == ["a/b: answers.fast"]
    verdict = read(tmp_path / "again" / "verdict.json")
    assert verdict["judged_again_from"]["document_sha256"] == read(results / "verdict.json")["document_sha256"]
    assert verdict["answers"]["count"] == 2


def test_what_was_judged_again_can_be_judged_again(run: Callable[..., Path], judge: Judge, tmp_path: Path) -> None:
    judge(run())
    assert judge(tmp_path / "again", "--output", str(tmp_path / "twice")) == 0
    assert (tmp_path / "twice" / "verdict.json").is_file()


def test_stricter_criteria_reject_the_same_answers(run: Callable[..., Path], judge: Judge, tmp_path: Path) -> None:
    assert judge(run(), "--criteria", "strict") == 10
    assert outcomes(tmp_path / "again") == {"answers.short": "FAIL", "answers.fast": "PASS"}
    assert read(tmp_path / "again" / "acceptance.json")["criteria_set"] == "strict"


def test_a_criterion_that_the_run_did_not_test_is_not_run(
    run: Callable[..., Path], judge: Judge, tmp_path: Path
) -> None:
    assert judge(run(), "--criteria", "more") == 11
    assert outcomes(tmp_path / "again")["answers.polite"] == "NOT_RUN"


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("measured.record(seconds=5.0)", "PASS"),
        ("measured.record(seconds=5.0); assert False", "FAIL"),
        ("measured.record(seconds=1.0); assert False", "FAIL"),
        ("pytest.skip('no time')", "NOT_RUN"),
        ("pass", "FAIL"),
    ],
    ids=["a bound alone", "a bound and the test", "the test alone", "skipped", "nothing recorded"],
)
def test_looser_criteria_forgive_bounds_and_nothing_else(
    body: str, outcome: str, run: Callable[..., Path], judge: Judge, tmp_path: Path
) -> None:
    results = run(TESTS.replace("measured.record(seconds=1.0)", body), 11 if "skip" in body else 10)
    judge(results, "--criteria", "loose")
    assert outcomes(tmp_path / "again")["answers.fast"] == outcome


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "before", "after", "complaint"),
    [
        ("answers-a%2Fb.jsonl", '"eos"', '"length"', "SHA-256 is not the one in the document"),
        ("acceptance.json", '"seconds": 1.0', '"seconds": 0.5', "not that of acceptance.json"),
        ("acceptance.json", '"adapter_sha256": "abc"', '"adapter_sha256": "abd"', "not that of acceptance.json"),
        ("verdict.json", '"seconds": 1.0', '"seconds": 0.5', "edited after the verdict was sealed"),
    ],
)
def test_edited_files_are_refused(
    file: str,
    before: str,
    after: str,
    complaint: str,
    run: Callable[..., Path],
    judge: Judge,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = run()
    edit(results / file, before, after)
    assert judge(results) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_answers_of_other_weights_are_refused(
    run: Callable[..., Path], judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    (results / "verdict.json").unlink()
    edit(results / "acceptance.json", '"adapter_sha256": "abc"', '"adapter_sha256": "abd"')
    assert judge(results) == 2
    assert "other weights or settings than the document's: adapter_sha256" in capsys.readouterr().err


@pytest.mark.parametrize(("adapter", "status"), [("abc", 0), ("abd", 2)], ids=["the same run", "another run"])
def test_a_named_run_must_be_the_one_that_answered(
    adapter: str,
    status: int,
    run: Callable[..., Path],
    judge: Judge,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = run()
    # Inner runs forget what they imported, so the module is the one that is imported after it.
    fingerprint = importlib.import_module("pipeline.release.fingerprint")
    monkeypatch.setattr(fingerprint, "run_identity", lambda _: {"adapter_sha256": adapter})
    assert judge(results, "--run", "runs/first") == status
    complaint = "a/b: the answers are not those of runs/first: adapter_sha256 differ"
    assert (complaint in capsys.readouterr().err) is (status != 0)


@pytest.mark.parametrize(("content", "status"), [("first", 0), ("other", 2)], ids=["the same", "others"])
def test_named_questions_must_be_those_that_were_asked(
    content: str,
    status: int,
    run: Callable[..., Path],
    judge: Judge,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    questions = tmp_path / "asked.jsonl"
    questions.write_text(content)
    assert judge(run(), "--questions", str(questions)) == status
    complaint = f"the answers are not those to {questions}: the questions are 2 of asked.jsonl, sha256 "
    assert (complaint in capsys.readouterr().err) is (status != 0)
    assert (tmp_path / "again").exists() is (status == 0)


def test_questions_that_a_run_does_not_name_cannot_be_required(
    run: Callable[..., Path], judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    document = read(results / "acceptance.json")
    del document["provenance"]["questions"]
    (results / "acceptance.json").write_text(json.dumps(document))
    (results / "verdict.json").unlink()
    (tmp_path / "asked.jsonl").write_text("first")
    assert judge(results, "--questions", str(tmp_path / "asked.jsonl")) == 2
    assert "the questions are not recorded; name the file that was asked" in capsys.readouterr().err


def test_missing_answers_are_refused(
    run: Callable[..., Path], judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    (results / "answers-a%2Fb.jsonl").unlink()
    assert judge(results) == 2
    assert "restore the answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "options", "complaint"),
    [
        ('"share": 1.0', '"share": 0.5', (), "a share of 0.5 is not 2 of 2"),
        ("{", "{", ("--criteria", "absent"), "no installed sets of criteria are called 'absent'"),
    ],
    ids=["a figure that contradicts itself", "a set that is not installed"],
)
def test_what_cannot_be_judged_is_refused_in_a_line(
    before: str,
    after: str,
    options: tuple[str, ...],
    complaint: str,
    run: Callable[..., Path],
    judge: Judge,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = run()
    (results / "verdict.json").unlink()
    edit(results / "acceptance.json", before, after)
    capsys.readouterr()
    assert judge(results, *options) == 2
    assert complaint in capsys.readouterr().err


def test_without_a_sealed_verdict_none_is_sealed(
    run: Callable[..., Path], judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    (results / "verdict.json").unlink()
    assert judge(results) == 0
    assert "no verdict is sealed" in capsys.readouterr().out
    assert not (tmp_path / "again" / "verdict.json").exists()


def test_the_key_of_a_verdict_is_needed_to_seal_another(
    run: Callable[..., Path],
    judge: Judge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    results = run()
    monkeypatch.delenv(KEY_VARIABLE)
    assert judge(results) == 0
    assert "a/b: verdict.json has a key that is not here, so no verdict is sealed" in capsys.readouterr().out
    assert not (tmp_path / "again" / "verdict.json").exists()
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    assert judge(results, "--output", str(tmp_path / "sealed")) == 0
    assert (tmp_path / "sealed" / "verdict.json").is_file()


def test_a_file_that_is_no_verdict_is_refused(
    run: Callable[..., Path], judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    for content in ("{", "[]", "{}", '{"seal": 1}'):
        (results / "verdict.json").write_text(content)
        assert judge(results) == 2, content
        assert re.search(r"verdict\.json: is no verdict \(.+\); restore it", capsys.readouterr().err), content


@pytest.mark.slow
def test_a_document_of_no_named_set_is_judged_by_the_set_that_is_named(
    run: Callable[..., Path], judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    (results / "verdict.json").unlink()
    document = read(results / "acceptance.json")
    del document["criteria_set"]
    (results / "acceptance.json").write_text(json.dumps(document))
    assert judge(results) == 2
    assert "acceptance.json: names no set of criteria; name one with --criteria" in capsys.readouterr().err
    assert judge(results, "--criteria", "own") == 0


@pytest.mark.slow
def test_what_a_set_leaves_out_is_noted(
    run: Callable[..., Path], judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(run(), "--criteria", "fewer") == 0
    assert "note: a/b: not in the set fewer: answers.fast" in capsys.readouterr().out
    assert outcomes(tmp_path / "again") == {"answers.short": "PASS"}


@pytest.mark.slow
def test_a_set_that_measures_otherwise_says_what_changed(
    run: Callable[..., Path], judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(run(), "--criteria", "recounted") == 0
    assert "longest_tokens was 40, from the answers it is 41" in capsys.readouterr().out


@pytest.mark.slow
def test_a_set_that_cannot_read_the_answers_is_refused(
    run: Callable[..., Path], judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(run(), "--criteria", "broken") == 2
    assert (
        "a/b: answers.short: the set broken cannot measure the kept answers (KeyError: 'n'); run the acceptance again"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_what_did_not_apply_and_is_asked_now_is_not_run(run: Callable[..., Path], judge: Judge, tmp_path: Path) -> None:
    results = run(TESTS.replace("learned=True", "learned=False"), 11, CONFTEST.replace("OWN", "UNLEARNED"))
    for name, outcome in (("unlearned", "NOT_APPLICABLE"), ("own", "NOT_RUN")):
        assert judge(results, "--criteria", name, "--output", str(tmp_path / name)) == 11
        assert outcomes(results)["answers.fast"] == "NOT_APPLICABLE"
        assert outcomes(tmp_path / name)["answers.fast"] == outcome


@pytest.mark.slow
def test_a_run_that_kept_no_answers_is_judged_by_its_figures(
    run: Callable[..., Path], judge: Judge, tmp_path: Path
) -> None:
    assert judge(run(TESTS.replace("measured.keep(ANSWERS)", ""))) == 0
    origin = read(tmp_path / "again" / "acceptance.json")["judged_again_from"]
    assert origin["from_answers"] == []
    assert origin["from_measurements"] == ["a/b: answers.short", "a/b: answers.fast"]


def test_a_file_of_other_answers_is_refused_although_its_digest_is_right(
    run: Callable[..., Path], judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    results = run()
    (results / "verdict.json").unlink()
    document = read(results / "acceptance.json")
    for content, complaint in (
        ("", r"jsonl: holds no kept answers \(.+\); restore the file of that run"),
        ('{"subject": "a/b"}\n', r"jsonl: holds no kept answers \('identity'\); restore"),
        ('{"subject": "c", "identity": {}}\n', "answers of the subject 'c', not of 'a/b'; run the acceptance again"),
    ):
        (results / "answers-a%2Fb.jsonl").write_text(content)
        document["subjects"][0]["answers"]["sha256"] = hashlib.sha256(content.encode()).hexdigest()
        (results / "acceptance.json").write_text(json.dumps(document))
        assert judge(results) == 2, content
        assert re.search(complaint, capsys.readouterr().err), content


def test_results_are_never_overwritten(run: Callable[..., Path], judge: Judge) -> None:
    results = run()
    before = (results / "acceptance.json").read_bytes()
    assert judge(results, "--output", str(results), "--criteria", "strict") == 2
    assert (results / "acceptance.json").read_bytes() == before


@pytest.mark.slow
def test_workers_keep_answers_too(run: Callable[..., Path], judge: Judge, pytester: pytest.Pytester) -> None:
    results = run()
    alone = (results / "answers-a%2Fb.jsonl").read_bytes()
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2")
    assert (results / "answers-a%2Fb.jsonl").read_bytes() == alone
    assert judge(results) == 0


def test_the_command_needs_no_torch(run: Callable[..., Path], tmp_path: Path) -> None:
    results = run()
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft')))\n"
        "from pipeline.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "judge", str(results), "--output", str(tmp_path / "again")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([{"seconds": float("nan")}], "finite JSON values"),
        ([{"text": object()}], "finite JSON values"),
        ([{"text": "a"}, {"text": "a"}], "two kept answers are equal"),
    ],
)
def test_answers_that_could_not_be_read_back_are_refused_when_kept(
    answers: list[dict[str, object]], complaint: str
) -> None:
    from harness.recorder import Recorder

    with pytest.raises(ValueError, match=complaint):
        Recorder().keep(answers)
