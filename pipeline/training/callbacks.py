"""What happens at each step of training: figures, marks on complete checkpoints, a stop when asked."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from pipeline.distributed import is_first_process, mean_over_processes, sum_over_processes, wait_for_processes
from pipeline.errors import PipelineError
from pipeline.memory import peak_memory
from pipeline.run_folder import RunFolder
from pipeline.training.trainer import StepRecordingTrainer


class TrainingDivergedError(PipelineError):
    """The loss or the gradient stopped being a number."""


class StepMetrics(TrainerCallback):
    """Writes each step's figures, draws the progress bar, marks whole checkpoints and stops a diverged run."""

    def __init__(self, run: RunFolder, trainer: StepRecordingTrainer, device: str, earlier_s: float) -> None:
        """Record into ``run`` what ``trainer`` does, ``earlier_s`` seconds of training after the run began.

        Every process has one, since a step's loss is what all of them computed.
        """
        self._run, self._trainer, self._device = run, trainer, device
        self._started = time.perf_counter() - earlier_s
        self._bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar and say how many steps there are, so that a killed run shows how far it got."""
        self._run.update(planned_steps=state.max_steps)
        quiet = not is_first_process()
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step", disable=quiet)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask the trainer to log this step whatever ``logging_steps`` says; that setting paces the console."""
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the step's row.

        Raises:
            TrainingDivergedError: Its loss or gradient norm is not finite.
        """
        if not logs or "grad_norm" not in logs:
            return
        own_loss, own_tokens = self._trainer.take_figures()
        loss = mean_over_processes(own_loss)  # each already multiplied by the number of processes
        tokens = int(sum_over_processes(own_tokens))
        row = {
            "step": state.global_step,
            "loss": loss,
            "grad_norm": float(logs["grad_norm"]),
            "learning_rate": logs["learning_rate"],
            "tokens": tokens,
            "elapsed_s": time.perf_counter() - self._started,
            **peak_memory(self._device),
        }
        with self._run.metrics_file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        assert self._bar is not None
        self._bar.update(1)
        self._bar.set_postfix(loss=f"{loss:.3f}")
        if state.global_step % args.logging_steps == 0:
            self._bar.write(f"step {state.global_step}/{state.max_steps}: loss {loss:.4f}")
        if not (math.isfinite(loss) and math.isfinite(row["grad_norm"])):
            raise TrainingDivergedError(
                f"step {state.global_step}: loss {loss}, gradient norm {row['grad_norm']}; "
                "lower the learning rate or check the data."
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole; one without the mark is never resumed from."""
        wait_for_processes()  # each writes its own random state
        if is_first_process():
            self._run.mark_complete(self._run.checkpoints / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def require_tensorboard() -> Any:
    """TensorBoard's writer.

    Raises:
        PipelineError: It is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PipelineError(
            f"--report-to tensorboard: it is not installed ({error}); run: pip install 'verbosity[tensorboard]'."
        ) from error
    return SummaryWriter


def tensorboard_callback(run: RunFolder, step: int) -> TrainerCallback:
    """Writes every step's figures below the run folder; a resumed run replaces those after ``step``."""
    return TensorBoardCallback(require_tensorboard()(str(run.tensorboard), purge_step=step + 1))


class StopWhenAsked(TrainerCallback):
    """Ends training after the step at hand, with a checkpoint, once ``asked`` is set."""

    def __init__(self, asked: threading.Event) -> None:
        """Look at ``asked`` after each step."""
        self._asked = asked

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop, if any process was asked."""
        if sum_over_processes(float(self._asked.is_set())):
            control.should_save = control.should_training_stop = True


@contextmanager
def termination_asked() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process; signals reach the main thread only."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)
