"""Work in a thread that ends with it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.model import loading as model
from pipeline.model.openmp import in_temporary_thread
from pipeline.run_folder import RunFolder


def test_the_work_is_done_elsewhere_and_its_thread_is_gone() -> None:
    before = threading.enumerate()
    worker = in_temporary_thread(threading.current_thread)()
    assert worker is not threading.current_thread()
    assert threading.enumerate() == before


def test_arguments_and_errors_pass() -> None:
    @in_temporary_thread
    def divide(dividend: int, *, divisor: int) -> float:
        return dividend / divisor

    assert divide(6, divisor=4) == 1.5
    with pytest.raises(ZeroDivisionError):
        divide(1, divisor=0)


def test_a_model_is_loaded_in_such_a_thread(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this thread computed with would stay, and slow down the thread that answers."""
    seen: list[threading.Thread] = []

    def read(run: RunFolder) -> dict[str, Any]:
        seen.append(threading.current_thread())
        raise PipelineError("no run")

    monkeypatch.setattr(RunFolder, "read_record", read)
    for load in (model.load_trained, model.load_untrained):
        with pytest.raises(PipelineError, match="no run"):
            load(RunFolder(tmp_path))
    assert len(seen) == 2
    assert threading.main_thread() not in seen
