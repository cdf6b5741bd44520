"""Bytes that a training run will hold, computed from shapes before anything is loaded.

Weights, adapter, gradients and optimizer state are exact. Activations follow what autograd keeps of transformers'
Mistral and Llama layers with PEFT's LoRA around each projection (transformers 5.23, peft 0.21, bitsandbytes 0.50); a
test holds the formula against the tensors really saved on a CPU; that of fused attention on CUDA came within 8 % of
what was recorded of lean on an H200 (docs/results.md).
The constants for allocators and caches were fitted to measured runs after the fact, not derived; each says to which.

Not counted: loading, whose peak lies below training's for every target, and the data loader's worker processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.config import Preset, Style
from pipeline.model.shapes import MistralShape
from pipeline.planning.devices import CUDA_CONTEXT_BYTES

FLOAT32_BYTES = 4
PHASES = ("loss", "backward", "update")
"""Moments of a step that can be the peak: all logits exist; the last layer's gradients are made; AdamW steps."""
QUANTIZATION_BLOCK, NESTED_BLOCK = 64, 256
"""Weights per scale and scales per nested scale of bitsandbytes' double quantisation (QLoRA, arXiv:2305.14314)."""
ALLOCATOR_SLACK = 0.058
"""What torch's CUDA allocator reserves beyond what is allocated, as a share of it: fitted to the 10.79 and 10.20 GiB of
one golden run of Mistral's shape on an H200."""
SHAPE_CACHE_BYTES, SHAPE_CACHE_LIMIT_BYTES = 15 * 1024**2, 940 * 1024**2
"""What oneDNN's cache of compiled bfloat16 products takes for each shape of a micro-batch, and at most (it keeps 1024
of them): fitted to tiny-mistral, which grew by 15 MiB for each of its first 50 lengths under both presets, stopped at
0.92 GiB, grew half as much without the cache, and not at all in float32."""
LOSS_ROWS_AT_ONCE = 128
"""Positions whose logits exist at the same time where the head is not trained."""
HEAP_FRAGMENTATION = 1.1
"""Heap that a CPU process cannot use again, as a share of the activations, blocks of ever other sizes: fitted to the
recorded embedded run (2.90 GiB after 320 steps, 1.53 after the first)."""


@dataclass(frozen=True, slots=True, order=True)
class MicroBatch:
    """The padded shape of one micro-batch: examples, tokens of its longest, positions of each that have logits."""

    examples: int
    longest_tokens: int
    labelled_tokens: int

    @property
    def tokens(self) -> int:
        """Padding included."""
        return self.examples * self.longest_tokens

    @property
    def logit_rows(self) -> int:
        """Positions whose logits are computed."""
        return self.examples * self.labelled_tokens


@dataclass(frozen=True)
class Needs:
    """Bytes and operations of one configuration; every ``*_bytes`` is in bytes.

    Attributes:
        shape: The base model's, style rows included in its vocabulary.
        preset: Its ``compute_dtype`` as the device has it.
        kind: ``cpu`` (eager attention) or ``cuda`` (fused attention).
    """

    shape: MistralShape
    preset: Preset
    kind: str

    @cached_property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each 4-bit matrix of the decoder, by tensor name."""
        return self.shape.projections()

    @property
    def projection_parameters(self) -> int:
        """Parameters held in 4-bit."""
        return sum(rows * columns for rows, columns in self.projections.values())

    @property
    def compute_bytes(self) -> int:
        """Bytes of one number in matrix products."""
        return 2 if self.preset.quantization.compute_dtype == "bfloat16" else FLOAT32_BYTES

    @property
    def autocast(self) -> bool:
        """Whether products are made in less than float32, from copies that are cast for each."""
        return self.compute_bytes < FLOAT32_BYTES

    @property
    def hidden_bytes(self) -> int:
        """Bytes of one number between layers: float32 where the k-bit preparation upcast embeddings and norms."""
        return FLOAT32_BYTES if self.preset.training.upcast_embeddings else self.compute_bytes

    @property
    def quantized_bytes(self) -> int:
        """Packed 4-bit weights, their 8-bit scales and the float32 scales of those."""
        total = 0
        for rows, columns in self.projections.values():
            blocks = math.ceil(rows * columns / QUANTIZATION_BLOCK)
            total += math.ceil(rows * columns / 2) + blocks + FLOAT32_BYTES * math.ceil(blocks / NESTED_BLOCK)
        return total

    @property
    def other_weights_bytes(self) -> int:
        """The base's embeddings, head (if it is not the embeddings) and norms."""
        return (self.shape.parameter_count - self.projection_parameters) * self.hidden_bytes

    @property
    def lora_parameters(self) -> int:
        """Of both factors around each trained projection."""
        adapter = self.preset.adapter
        return sum(
            adapter.rank * (rows + columns)
            for name, (rows, columns) in self.projections.items()
            if name.split(".")[-2] in adapter.target_modules
        )

    @property
    def trained_parameters(self) -> int:
        """LoRA and two embedding rows (lean), or LoRA and copies of the whole embeddings and head (golden)."""
        adapter = self.preset.adapter
        rows = (
            len(Style) if adapter.trains_style_rows_only else self.shape.vocabulary_size * len(adapter.modules_to_save)
        )
        return self.lora_parameters + rows * self.shape.hidden_size

    @property
    def adapter_bytes(self) -> int:
        """The trained tensors; PEFT keeps and saves them as float32."""
        return self.trained_parameters * FLOAT32_BYTES

    @property
    def gradient_bytes(self) -> int:
        """They stay from one micro-batch of a window to the next."""
        return self.adapter_bytes

    @property
    def optimizer_bytes(self) -> int:
        """AdamW's two float32 moments."""
        return 2 * self.adapter_bytes

    def layer_bytes(self, batch: MicroBatch) -> int:
        """What autograd keeps of one decoder layer.

        LoRA's input, and what its dropout drew (float32 noise on a CPU, a byte on CUDA); both norms' float32 inputs;
        queries, and keys and values repeated to every head; the softmax (and its copy in bfloat16) where attention is
        eager, its output and sums where it is fused; three tensors of the MLP's inner width.
        """
        shape, autocast, dropout = self.shape, self.autocast, self.preset.adapter.dropout > 0
        hidden, inner = shape.hidden_size, shape.intermediate_size
        # A cast or a dropout makes each projection a copy of its own; else three share a norm's output, and two do.
        copied = dropout or (autocast and self.preset.training.upcast_embeddings)
        projected = (6 if copied else 3) * hidden + inner
        drawn = (6 * hidden + inner) * (FLOAT32_BYTES if self.kind == "cpu" else 1) * dropout
        per_token = (
            (projected + 7 * self.preset.adapter.rank) * self.compute_bytes
            + drawn
            + 2 * (hidden + 1) * FLOAT32_BYTES
            + 3 * hidden * self.compute_bytes
            + 3 * inner * self.hidden_bytes
        )
        if self.kind == "cuda":
            attention = batch.tokens * (hidden * self.compute_bytes + shape.attention_heads * FLOAT32_BYTES)
        else:
            pair = FLOAT32_BYTES + (self.compute_bytes if autocast else 0)
            attention = batch.examples * shape.attention_heads * batch.longest_tokens**2 * pair
        cast_lora = self.lora_parameters // shape.layers * self.compute_bytes if autocast else 0
        return batch.tokens * per_token + attention + cast_lora

    def activation_bytes(self, batch: MicroBatch) -> tuple[int, int]:
        """Activations while the loss is made, and while the last layer's gradients are."""
        shape, training = self.shape, self.preset.training
        layer, kept = self.layer_bytes(batch), self.shape.layers * self.layer_bytes(batch)
        if training.gradient_checkpointing:
            kept = shape.layers * batch.tokens * shape.hidden_size * self.hidden_bytes
        # Gradients of the MLP's three inner tensors, and the largest 4-bit matrix unpacked.
        flowing = 3 * batch.tokens * shape.intermediate_size * self.hidden_bytes
        unpacked = max(rows * columns for rows, columns in self.projections.values()) * self.compute_bytes
        again = layer if training.gradient_checkpointing else 0
        final_norm = batch.tokens * shape.hidden_size * FLOAT32_BYTES
        return kept + final_norm, kept + again + flowing + unpacked

    def logits_bytes(self, batch: MicroBatch) -> int:
        """Float32 tensors as wide as the vocabulary that exist at a time.

        Of all rows three, the log-probabilities and the gradients before and after the softmax; for a frozen head
        (lean) two, scores and their exponentials, of the rows that its loss takes at once.
        """
        if self.preset.adapter.trains_style_rows_only:
            return 2 * FLOAT32_BYTES * min(batch.logit_rows, LOSS_ROWS_AT_ONCE) * self.shape.vocabulary_size
        return 3 * FLOAT32_BYTES * batch.logit_rows * self.shape.vocabulary_size

    @property
    def head_gradient_bytes(self) -> int:
        """A trained head in the loss's backward pass: its cast copy, the gradient of that, and that as float32."""
        if self.preset.adapter.trains_style_rows_only:
            return 0
        casts = 2 * self.compute_bytes if self.autocast else 0
        return self.shape.vocabulary_size * self.shape.hidden_size * (casts + FLOAT32_BYTES)

    @property
    def update_bytes(self) -> int:
        """AdamW's denominators: of all tensors at once on CUDA, twice of the largest on a CPU."""
        if self.kind == "cuda":
            return self.adapter_bytes
        whole = 0 if self.preset.adapter.trains_style_rows_only else self.shape.vocabulary_size * self.shape.hidden_size
        return 2 * FLOAT32_BYTES * max(whole, self.preset.adapter.rank * self.shape.intermediate_size)

    def components(self, batches: Sequence[MicroBatch], process_bytes: int) -> dict[str, tuple[int, int, int]]:
        """Bytes of each component in each of ``PHASES``, for the largest of the micro-batches.

        Args:
            batches: All that the run makes.
            process_bytes: Resident memory before anything is loaded; counts on a CPU only.
        """
        largest = max(set(batches), key=lambda batch: sum(self.activation_bytes(batch)) + self.logits_bytes(batch))
        at_loss, at_backward = self.activation_bytes(largest)
        parts = {
            "4-bit weights": (self.quantized_bytes,) * 3,
            "other base weights": (self.other_weights_bytes,) * 3,
            "adapter": (self.adapter_bytes,) * 3,
            "gradients": (self.gradient_bytes + self.head_gradient_bytes, *(self.gradient_bytes,) * 2),
            "optimizer": (self.optimizer_bytes, self.optimizer_bytes, self.optimizer_bytes + self.update_bytes),
            "activations": (at_loss, at_backward, 0),
            "logits and loss": (self.logits_bytes(largest), 0, 0),
        }
        if self.kind == "cuda":
            sums = [sum(column) for column in zip(*parts.values(), strict=True)]
            # What was reserved for the largest phase stays reserved in the others.
            slack = int(ALLOCATOR_SLACK * max(sums))
            return {**parts, "allocator": (slack,) * 3, "CUDA context": (CUDA_CONTEXT_BYTES,) * 3}
        shapes = len({(batch.examples, batch.longest_tokens) for batch in batches})
        cached = min(SHAPE_CACHE_BYTES * shapes, SHAPE_CACHE_LIMIT_BYTES) if self.autocast else 0
        heap = int(HEAP_FRAGMENTATION * max(at_loss, at_backward))
        return {
            **parts,
            "compiled products": (cached,) * 3,
            "heap fragmentation": (heap,) * 3,
            "process": (process_bytes,) * 3,
        }
