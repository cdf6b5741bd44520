"""Deliberately broken pipelines, each with the criteria that must catch it.

A fault is injected by replacing functions of the pipeline in the processes under test (``inject``), or by damaging a
finished run (``damage``). Nothing of the gate is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.run_folder import RunFolder
from sabotage import answering, damage, serving, training

ADAPTER_SAVES, COMPLETES, CONVERGES = "training.adapter_saves", "training.completes", "training.loss_converges"
DURATION = "training.duration"
FOUR_BIT, MEMORY = "training.loads_in_4bit", "training.gpu_memory"
SEPARATION, CONSISTENCY, SPEED = "style.token_separation", "style.consistency", "style.generation_speed"
REPETITION, COHERENCE = "style.no_repetition", "style.coherence"
STARTS, HEALTH = "deployment.server_starts", "deployment.health_endpoint"
GENERATE, ERRORS = "deployment.generate_endpoint", "deployment.error_handling"
LOAD, SERVED = "deployment.under_load", "deployment.served_answers"
STYLE = (SEPARATION, CONSISTENCY, REPETITION, COHERENCE)
ANSWERS = (GENERATE, LOAD, SERVED)


@dataclass(frozen=True)
class Fault:
    """One broken pipeline.

    Attributes:
        name: Its name on the command line.
        what: What is broken, in one line.
        catches: Criteria that must turn to FAIL.
        may_follow: Criteria that depend on what is broken, and may FAIL or be UNDECIDED too.
        learned: Whether it shows on learned weights only; otherwise the tiny target is enough.
        trains: Whether the run is trained under the fault; otherwise a healthy run is judged under it.
        inject: Replaces functions of the pipeline in this process.
        damage: Damages a copy of a healthy run.
    """

    name: str
    what: str
    catches: tuple[str, ...]
    may_follow: tuple[str, ...] = ()
    learned: bool = False
    trains: bool = False
    inject: Callable[[], None] | None = None
    damage: Callable[[RunFolder], None] | None = None

    @property
    def target(self) -> Literal["smollm2-135m", "tiny-mistral"]:
        """The target that it runs on."""
        return "smollm2-135m" if self.learned else "tiny-mistral"


_FAULTS = (
    Fault("bf16", "the base model is loaded unquantised", (FOUR_BIT,), inject=training.load_unquantised),
    Fault("fp4", "the base model is loaded as FP4, not NF4", (FOUR_BIT,), inject=training.load_fp4),
    Fault("single-quant", "double quantisation is off", (FOUR_BIT,), inject=training.load_single_quantised),
    Fault(
        "memory-held", "training holds 7 GiB that it does not need", (MEMORY,), trains=True, inject=training.hold_memory
    ),
    Fault("crawl", "every micro-batch waits 16 seconds", (DURATION,), trains=True, inject=training.crawl),
    Fault("killed", "training is killed half way", (COMPLETES,), trains=True, inject=training.kill_half_way),
    Fault(
        "half-trained",
        "training stops half way and says it is done",
        (COMPLETES,),
        (ADAPTER_SAVES,),
        trains=True,
        inject=training.stop_half_way,
    ),
    Fault("frozen", "the LoRA matrices are frozen", (ADAPTER_SAVES,), trains=True, inject=training.freeze_adapter),
    Fault(
        "truncated",
        "the adapter file is cut in half",
        (ADAPTER_SAVES,),
        (STARTS, GENERATE, LOAD),
        damage=damage.truncate,
    ),
    Fault(
        "tensor-lost",
        "the adapter file lacks one tensor",
        (ADAPTER_SAVES,),
        (STARTS, GENERATE, LOAD),
        damage=damage.lose_tensor,
    ),
    Fault(
        "tensor-nan",
        "one tensor of the adapter is NaN",
        (ADAPTER_SAVES,),
        (STARTS, GENERATE, LOAD, SPEED),
        damage=damage.poison_tensor,
    ),
    Fault(
        "other-adapter",
        "the adapter is not the one that was trained",
        (ADAPTER_SAVES,),
        (STARTS, GENERATE, LOAD),
        damage=damage.exchange,
    ),
    Fault("slow", "now and then an answer takes 31 s", (SPEED,), (GENERATE, LOAD), inject=answering.stall),
    Fault("never-ready", "the server hangs before it listens", (STARTS,), inject=serving.hang),
    Fault("dies-at-start", "the server exits before it listens", (STARTS,), inject=serving.exit_at_once),
    Fault("health-lies", "/health names another adapter", (HEALTH,), inject=serving.name_another_adapter),
    Fault("health-incomplete", "/health leaves out gpu_memory", (HEALTH,), inject=serving.leave_out_memory),
    Fault("errors-are-200", "malformed requests are answered with 200", (ERRORS,), inject=serving.answer_200),
    Fault("errors-are-html", "error bodies are HTML", (ERRORS,), inject=serving.answer_html),
    Fault("dies-of-bad-json", "the server dies of a malformed request", (ERRORS,), inject=serving.die_of_bad_request),
    Fault("latency-in-ms", "latency is given in milliseconds", (GENERATE,), (LOAD,), inject=serving.milliseconds),
    Fault("served-terse", "the server ignores the field style", (GENERATE,), (LOAD,), inject=serving.ignore_style),
    Fault("mixed-up", "of concurrent requests each gets another's answer", (GENERATE,), (LOAD,), inject=serving.mix_up),
    Fault(
        "mixed-up-texts",
        "concurrent TERSE requests get each other's texts",
        (GENERATE, LOAD),
        (SERVED,),
        learned=True,
        inject=serving.mix_up_terse,
    ),
    Fault(
        "served-word-salad",
        "the server shuffles the words of every answer",
        (SERVED,),
        ANSWERS,
        learned=True,
        inject=serving.shuffle_words,
    ),
    Fault(
        "served-base",
        "the server leaves the adapter out",
        (SERVED,),
        ANSWERS,
        learned=True,
        inject=serving.leave_adapter_out,
    ),
    Fault("words-as-tokens", "tokens counts words", (GENERATE,), ANSWERS, learned=True, inject=serving.count_words),
    Fault(
        "breaks-under-load", "with six requests under way one more gets 500", (LOAD,), inject=serving.break_when_busy
    ),
    Fault("starves-under-load", "with six requests under way one waits 31 s", (LOAD,), inject=serving.starve_when_busy),
    Fault("health-slow", "/health takes two seconds", (LOAD,), inject=serving.slow_health),
    Fault(
        "no-learning",
        "the learning rate is zero",
        (CONVERGES, ADAPTER_SAVES, SEPARATION, CONSISTENCY),
        (*STYLE, *ANSWERS),
        learned=True,
        trains=True,
        inject=training.learn_nothing,
    ),
    Fault(
        "nan-loss",
        "the loss turns NaN",
        (CONVERGES, COMPLETES),
        learned=True,
        trains=True,
        inject=training.nan_loss,
    ),
    Fault(
        "labels-shuffled",
        "the labels of every answer are shuffled",
        (COHERENCE,),
        (*STYLE, CONVERGES, *ANSWERS),
        learned=True,
        trains=True,
        inject=training.shuffle_labels,
    ),
    Fault(
        "never-stops",
        "EOS carries no loss, so no answer learns to end",
        (SEPARATION, COHERENCE),
        (*STYLE, *ANSWERS),
        learned=True,
        trains=True,
        inject=training.mask_eos,
    ),
    Fault(
        "tokens-untrained",
        "the training prompts hold no style token",
        (SEPARATION, CONSISTENCY),
        (*STYLE, *ANSWERS, ADAPTER_SAVES),
        learned=True,
        trains=True,
        inject=training.drop_style_tokens,
    ),
    Fault(
        "lora-zeroed",
        "the trained LoRA matrices are set to zero",
        (ADAPTER_SAVES, SEPARATION, CONSISTENCY),
        (*STYLE, *ANSWERS),
        learned=True,
        damage=damage.zero_lora,
    ),
    Fault(
        "no-adapter",
        "the base model answers without the adapter",
        (SEPARATION, CONSISTENCY),
        (*STYLE, *ANSWERS, ADAPTER_SAVES),  # the saved adapter is loaded again the same way
        learned=True,
        inject=answering.leave_adapter_out,
    ),
    Fault(
        "tokens-swapped",
        "each style puts the other's token in front",
        (SEPARATION, CONSISTENCY),
        (*STYLE, *ANSWERS),
        learned=True,
        inject=answering.swap_tokens,
    ),
    Fault(
        "style-ignored",
        "every answer is asked for tersely",
        (SEPARATION, CONSISTENCY),
        (*STYLE, *ANSWERS),
        learned=True,
        inject=answering.ask_tersely,
    ),
    Fault(
        "length-by-cap",
        "limits of decoding force the length of VERBOSE answers",
        (SEPARATION,),
        (*STYLE, *ANSWERS),
        learned=True,
        inject=answering.force_length,
    ),
    Fault(
        "length-by-cutting",
        "no token is used; TERSE is the first sentence of the one answer",
        (CONSISTENCY,),
        (*STYLE, *ANSWERS),
        learned=True,
        inject=answering.cut_to_first_sentence,
    ),
    Fault(
        "loop",
        "answers repeat their first eight tokens",
        (REPETITION,),
        (COHERENCE, SEPARATION, *ANSWERS),
        learned=True,
        inject=answering.loop,
    ),
    Fault(
        "word-salad",
        "the tokens of every answer are shuffled",
        (COHERENCE,),
        (SEPARATION, *ANSWERS),
        learned=True,
        inject=answering.shuffle_answer,
    ),
)

FAULTS = {fault.name: fault for fault in _FAULTS}
