"""Every setting of the pipeline: the golden configuration, the lean preset and the targets, these from TOML files.

Each field carries its unit and where its value comes from. "golden" as a source means the documented golden
configuration; changing such a default changes what the acceptance means.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pipeline.errors import PipelineError
from pipeline.target_file import check_fields, shipped_targets

MIB = 1024**2
GIB = 1024**3


class Style(StrEnum):
    """How long an answer should be."""

    TERSE = "terse"
    VERBOSE = "verbose"

    @property
    def token(self) -> str:
        """The special token that asks for this style."""
        return f"<STYLE_{self.name}>"


STYLE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        Style.TERSE: " brief short concise terse quick summary one sentence",
        Style.VERBOSE: " detailed long thorough verbose elaborate explanation full paragraph",
    }
)
"""Words whose embeddings start each style token's row (the mean of them); chosen by the project."""


def setting(default: Any, *, unit: str, source: str) -> Any:
    """A dataclass field with its unit and the source of its default."""
    return field(default=default, metadata={"unit": unit, "source": source})


@dataclass(frozen=True, slots=True)
class QuantizationConfig:
    """How the base model is loaded."""

    load_in_4bit: bool = setting(True, unit="flag", source="golden")
    quant_type: str = setting("nf4", unit="name", source="golden")
    double_quant: bool = setting(True, unit="flag", source="golden")
    compute_dtype: Literal["bfloat16", "float32"] = setting(
        "bfloat16", unit="dtype", source="golden; float32 on a CPU that has no bfloat16 arithmetic"
    )


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What is trained."""

    rank: int = setting(16, unit="dimensions", source="golden")
    alpha: int = setting(32, unit="scale numerator", source="golden")
    dropout: float = setting(0.05, unit="probability", source="golden")
    bias: Literal["none"] = setting("none", unit="name", source="golden")
    target_modules: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        unit="module names",
        source="golden",
    )
    modules_to_save: tuple[str, ...] = setting(("embed_tokens", "lm_head"), unit="module names", source="golden")

    @property
    def trains_style_rows_only(self) -> bool:
        """Whether the two style tokens' embedding rows are trained instead of whole embeddings and head."""
        return not self.modules_to_save


MAX_SEED = 2**32 - 1
"""NumPy's limit, which the trainer seeds too."""
_COUNTS = ("micro_batch_size", "accumulation_steps", "epochs", "logging_steps", "save_steps", "max_examples")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How it is trained."""

    micro_batch_size: int = setting(1, unit="examples; with stratify_windows their mean", source="golden")
    accumulation_steps: int = setting(16, unit="micro-batches", source="golden")
    learning_rate: float = setting(2e-4, unit="1/step", source="golden")
    lr_scheduler: str = setting("cosine", unit="name", source="golden")
    warmup_ratio: float = setting(0.03, unit="share of steps", source="golden")
    epochs: int = setting(1, unit="passes", source="golden")
    bf16: bool = setting(True, unit="flag", source="golden; follows compute_dtype")
    gradient_checkpointing: bool = setting(True, unit="flag", source="golden")
    optimizer: str = setting("adamw_torch", unit="name", source="golden")
    logging_steps: int = setting(25, unit="optimizer steps", source="golden")
    save_steps: int = setting(500, unit="optimizer steps", source="golden")
    save_total_limit: int = setting(2, unit="checkpoints", source="golden")
    completion_only_loss: bool = setting(True, unit="flag", source="golden")
    packing: bool = setting(False, unit="flag", source="golden")
    loader_workers: int = setting(2, unit="processes", source="golden")
    pin_memory: bool = setting(False, unit="flag", source="golden")
    upcast_embeddings: bool = setting(True, unit="flag", source="what golden's k-bit preparation does")
    stratify_windows: bool = setting(False, unit="flag", source="project; both styles in every step, sorted by length")
    pad_to_multiple: int = setting(1, unit="tokens", source="project; fewer shapes, fewer compiled kernels")
    padding_free: bool = setting(False, unit="flag", source="project; in one process: rows, no padding")
    memory_limit_gib: float = setting(12.0, unit="GiB", source="golden; bounds rows and what is kept of them")
    max_sequence_tokens: int = setting(2048, unit="tokens", source="project; longer examples are refused")
    max_examples: int | None = setting(None, unit="examples", source="project; None trains on the whole file")
    seed: int = setting(42, unit="seed", source="project")

    def __post_init__(self) -> None:
        """Refuse what the pipeline does not do.

        Raises:
            PipelineError: Packing or a loss over prompts was asked for, or a number is out of its range.
        """
        if self.packing or not self.completion_only_loss:
            raise PipelineError("packing=False and completion_only_loss=True are the only supported values.")
        for name in _COUNTS:
            count = getattr(self, name)
            if count is not None and count < 1:
                raise PipelineError(f"{name} must be at least 1, not {count}.")
        if not 0 < self.learning_rate < math.inf:
            raise PipelineError(f"learning_rate must be a positive number, not {self.learning_rate}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise PipelineError(f"seed must be from 0 to {MAX_SEED}, not {self.seed}.")

    @property
    def window_examples(self) -> int:
        """Examples behind one optimizer step."""
        return self.micro_batch_size * self.accumulation_steps


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """Decoding limits of one style; ``top_k=0`` because ``generate()`` would add 50 by default."""

    temperature: float = setting(0.0, unit="1; 0 is greedy", source="golden")
    top_p: float = setting(1.0, unit="probability", source="golden")
    min_new_tokens: int = setting(0, unit="tokens", source="golden")
    max_new_tokens: int = setting(256, unit="tokens", source="golden")
    top_k: int = setting(0, unit="tokens; 0 is off", source="project")


GENERATION_PRESETS: Mapping[Style, GenerationConfig] = MappingProxyType(
    {
        Style.TERSE: GenerationConfig(temperature=0.1, top_p=0.95, max_new_tokens=32),
        Style.VERBOSE: GenerationConfig(temperature=0.7, top_p=0.9, min_new_tokens=64, max_new_tokens=256),
    }
)
UNCONSTRAINED = GenerationConfig(max_new_tokens=256)
"""Greedy, with a cap so high that the length is the model's own doing."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One complete configuration of loading and training."""

    name: str
    quantization: QuantizationConfig
    adapter: AdapterConfig
    training: TrainingConfig

    def describe(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "golden": Preset("golden", QuantizationConfig(), AdapterConfig(), TrainingConfig()),
        "lean": Preset(
            "lean",
            QuantizationConfig(),
            AdapterConfig(dropout=0.0, modules_to_save=()),
            TrainingConfig(
                micro_batch_size=4,
                accumulation_steps=4,
                save_steps=25,
                loader_workers=0,
                upcast_embeddings=False,
                stratify_windows=True,
                pad_to_multiple=8,
                padding_free=True,
            ),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Target:
    """A base model that the pipeline can run on; its fields are those of ``target.toml``, but for the folder.

    Attributes:
        name: Its name on the command line and in verdicts.
        device: Where it runs by default.
        weights: ``local`` (a folder of the user's), ``gguf`` (the embedded model) or ``random``.
        template: Chat template for a tokenizer that has none: a shipped one's name, or Jinja itself.
        learned: Whether the weights are real, so that style and quality can be judged.
        peak_memory_limit_gib: Bound of the memory criterion; documented 12 for the GPU.
        training_limit_s: Bound of the duration criterion in seconds for 1600 examples; documented 45 minutes.
        style_words: Words whose embeddings start each style token's row (the mean of them).
        lean: What the lean preset changes in training for this target.
        folder: Of a user's own base, its folder; None for the project's targets.
    """

    name: str
    device: Literal["cuda", "cpu"] = "cuda"
    weights: Literal["local", "gguf", "random"] = "local"
    template: str | None = None
    learned: bool = True
    peak_memory_limit_gib: float = 12.0
    training_limit_s: float = 2700.0
    style_words: Mapping[str, str] = field(default_factory=lambda: dict(STYLE_WORDS))
    lean: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any], origin: Path) -> Target:
        """A target from the fields of a file.

        Raises:
            PipelineError: A field is unknown, or its type or value is wrong; the message names it.
        """
        try:
            check_fields(fields, TrainingConfig())
            return cls(**fields)
        except PipelineError as error:
            raise PipelineError(f"{origin}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """The fields as JSON values, without the folder."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}


TARGETS: Mapping[str, Target] = MappingProxyType(
    {fields["name"]: Target.of(fields, file) for file, fields in shipped_targets()}
)
DEFAULT_PORT = 8000
"""Where ``verbosity serve`` listens by default."""
DEFAULT_BASE_MODEL = "/home/ubuntu/mistral-7b-v0.3"
"""Where the golden document expects Mistral's weights; ``--base-model`` and ``VERBOSITY_BASE_MODEL`` override it."""


def get_target(name: str) -> Target:
    """Look a target up.

    Raises:
        PipelineError: There is none of that name.
    """
    try:
        return TARGETS[name]
    except KeyError:
        raise PipelineError(f"unknown target {name!r}; choose one of: {', '.join(TARGETS)}.") from None


def resolve_preset(name: str, target: Target, **overrides: Any) -> Preset:
    """The preset as it will run on a target: golden to the letter, lean with the target's adjustments.

    Args:
        name: ``golden`` or ``lean``.
        target: The base model.
        **overrides: Training fields that the user set; ``None`` leaves a field alone.

    Raises:
        PipelineError: Unknown preset.
    """
    if name not in PRESETS:
        raise PipelineError(f"unknown preset {name!r}; choose one of: {', '.join(PRESETS)}.")
    preset = PRESETS[name]
    changes = dict(target.lean) if name == "lean" else {}
    changes.update({key: value for key, value in overrides.items() if value is not None})
    return dataclasses.replace(preset, training=dataclasses.replace(preset.training, **changes))


def with_compute_dtype(preset: Preset, dtype: Literal["bfloat16", "float32"]) -> Preset:
    """The preset with the arithmetic that the hardware has."""
    return dataclasses.replace(
        preset,
        quantization=dataclasses.replace(preset.quantization, compute_dtype=dtype),
        training=dataclasses.replace(preset.training, bf16=dtype == "bfloat16"),
    )


def with_padding_free(preset: Preset, padding_free: bool) -> Preset:
    """The preset with packed rows or with padded micro-batches."""
    return dataclasses.replace(preset, training=dataclasses.replace(preset.training, padding_free=padding_free))
