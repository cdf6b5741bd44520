"""A run's own files after a crash, a full disk or another's hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.run_folder import RunFolder, package_versions

ROWS = [{"step": step, "loss": 1.5, "elapsed_s": float(step)} for step in (1, 2, 3)]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def write_metrics(run: RunFolder, ending: bytes) -> None:
    run.metrics_file.write_bytes("".join(json.dumps(row) + "\n" for row in ROWS).encode() + ending)


@pytest.mark.parametrize("ending", [b"", b'{"step": 4, "lo', b"{", b'{"step": 4, "name": "caf\xc3', b"\0\0\0\0"])
def test_a_last_line_that_was_cut_is_dropped_and_the_run_goes_on(run: RunFolder, ending: bytes) -> None:
    write_metrics(run, ending)
    assert run.read_metrics() == ROWS
    assert run.keep_metrics_until(2) == 2.0
    assert run.read_metrics() == ROWS[:2]
    assert run.metrics_file.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "damage", [b'{"step": 4, "lo\n{"step": 5}\n', b"[]\n", b"4\n", b'{"loss": 1.0}\n', b"\xff\xfe\n{}\n"]
)
def test_a_damaged_line_before_the_last_is_named(run: RunFolder, damage: bytes) -> None:
    write_metrics(run, damage)
    with pytest.raises(PipelineError, match=r"metrics\.jsonl:4: damaged \(.+\); delete the line or train again"):
        run.read_metrics()


def test_no_metrics_are_no_rows(run: RunFolder) -> None:
    assert run.read_metrics() == []
    write_metrics(run, b"")
    run.metrics_file.write_bytes(b"")
    assert run.read_metrics() == []


@pytest.mark.parametrize("content", [b"[]", b"null", b'"completed"', b"{", b"", b"\xff", b"[" * 100_000])
def test_a_record_that_is_no_object_is_damaged(run: RunFolder, content: bytes) -> None:
    run.record_file.write_bytes(content)
    uses: list[Callable[[], object]] = [
        run.read_record,
        partial(run.update, status="running"),
        partial(run.open, {"target": "tiny"}),
    ]
    for use in uses:
        with pytest.raises(PipelineError, match=r"run\.json: damaged \(.+\); train again in another folder"):
            use()


def test_a_record_that_lacks_a_field_names_it(run: RunFolder) -> None:
    run.record_file.write_text('{"adapter": {}}')
    for names in (["status"], ["adapter", "sha256"]):
        with pytest.raises(PipelineError, match=rf"run\.json: has no '{names[-1]}'; restore the file or train again"):
            reduce(getitem, names, run.read_record())
    assert run.read_record().get("status") is None


def test_what_is_no_checkpoint_is_left_alone(run: RunFolder) -> None:
    for name in (
        "checkpoint-old",
        "checkpoint-",
        "checkpoint-9.tmp",
        "checkpoint-2-copy",
        "checkpoint-²",
        "checkpoint-4",
    ):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "optimizer.pt").touch()
        run.mark_complete(run.checkpoints / name)
    (run.checkpoints / "checkpoint-6").touch()
    (run.checkpoints / "checkpoint-5").mkdir()
    (run.checkpoints / "checkpoint-5" / "complete.json").write_text("[1]")
    assert run.progress() == "it resumes from checkpoint-4."


def test_another_run_in_the_folder_is_told_by_the_fields_that_differ(run: RunFolder) -> None:
    preset = {"training": {"seed": 42, "learning_rate": 0.001}, "adapter": {"target_modules": ["q_proj"]}}
    data = {"sha256": "a" * 64, "examples": 16}
    run.update(target="tiny", preset=preset, data=data, status="running")
    same = {"target": "tiny", "preset": {**preset, "adapter": {"target_modules": ("q_proj",)}}, "data": data}
    assert run.open(same) is not None
    changed = {
        "target": "tiny",
        "preset": {**preset, "training": {"seed": 1, "warmup": None}},
        "data": {**data, "sha256": "b" * 64},
    }
    with pytest.raises(PipelineError) as refusal:
        run.open(changed)
    assert str(refusal.value) == (
        f"{run.path}: holds another run (data.sha256 bbbbbbbbbbbb..., was aaaaaaaaaaaa...; "
        "preset.training.learning_rate absent, was 0.001; preset.training.seed 1, was 42; "
        "preset.training.warmup null, was absent); choose another --output or delete it."
    )


def test_a_record_that_cannot_be_read_says_so(run: RunFolder) -> None:
    run.record_file.mkdir()
    with pytest.raises(PipelineError, match=r"run\.json: cannot be read \(Is a directory\); change its permissions"):
        run.read_record()


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(run: RunFolder) -> None:
    (run.path / ".adapter.x7").mkdir()
    (run.path / ".adapter.x7" / "adapter_model.safetensors").write_bytes(b"half")
    (run.path / ".run.json.17.tmp").write_text("{")
    (run.path / "notes.tmp").write_text("mine")
    with run.locked():
        assert {path.name for path in run.path.iterdir()} == {".lock", "notes.tmp"}


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run_folder.VERSIONED_PACKAGES", ("pytest", "no-such-package"))
    assert package_versions() == {"pytest": pytest.__version__, "no-such-package": None}
