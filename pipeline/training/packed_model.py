"""A window's examples one after the other in a single row, without padding between them: the same loss and gradients.

Runs the decoder layers of Mistral's and Llama's architecture with the weights of the loaded model; the model itself is
not changed. Attention keeps the examples apart by where each begins: with the variable-length flash kernel that torch
contains on a GPU, one example after the other on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipeline.data.batches import IGNORED_LABEL
from pipeline.training import cpu_attention, cpu_norm
from pipeline.training.frozen_head_loss import weighted_answer_loss
from pipeline.training.lora_projections import LoraGroup, gated_mlp, project


class _Rotation(torch.autograd.Function):
    """Rotary position embedding of (tokens, heads, size); its gradient is the rotation back."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotate(vectors, cosine, sine, 1)

    @staticmethod
    def backward(ctx: Any, *flowing: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _rotate(flowing[0], cosine, sine, -1), None, None


def _rotate(vectors: Tensor, cosine: Tensor, sine: Tensor, direction: int) -> Tensor:
    half = vectors.shape[-1] // 2
    rotated = vectors * cosine
    rotated[..., :half].addcmul_(vectors[..., half:], sine[..., :half], value=-direction)
    rotated[..., half:].addcmul_(vectors[..., :half], sine[..., half:], value=direction)
    return rotated


def _attend(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest_tokens: int) -> Tensor:
    """Causal attention within each example; query (tokens, heads, size), key and value (tokens, fewer heads, size)."""
    if query.is_cuda:
        # Under this name in every supported torch; ``torch.nn.attention.varlen`` came with 2.10.
        attended: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, starts, starts, longest_tokens, longest_tokens, 0.0, True, False
        )[0]
        return attended
    return cpu_attention.attend(query, key, value, starts)


class _Layer:
    """One decoder layer of the loaded model, over one row."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = layer.input_layernorm, layer.post_attention_layernorm
        self._head_size: int = attention.head_dim
        self._qkv = LoraGroup([attention.q_proj, attention.k_proj, attention.v_proj])
        self._output = LoraGroup([attention.o_proj])
        self._gate_up, self._down = LoraGroup([mlp.gate_proj, mlp.up_proj]), LoraGroup([mlp.down_proj])
        self.groups = self._qkv, self._output, self._gate_up, self._down

    def __call__(self, hidden: Tensor, cosine: Tensor, sine: Tensor, starts: Tensor, longest_tokens: int) -> Tensor:
        """``hidden`` after the layer, shape (tokens, width)."""
        parts = project(_normalized(hidden, self._norms[0]), self._qkv)
        query, key, value = (torch.unflatten(part, -1, (-1, self._head_size)) for part in parts)
        query, key = (_Rotation.apply(part, cosine, sine) for part in (query, key))  # type: ignore[no-untyped-call]
        attended = _attend(query, key, value, starts, longest_tokens)
        (output,) = project(attended.flatten(-2), self._output)
        hidden = hidden + output
        return hidden + gated_mlp(_normalized(hidden, self._norms[1]), self._gate_up, self._down)


def _normalized(hidden: Tensor, norm: Any) -> Tensor:
    if not hidden.is_cuda:
        return cpu_norm.normalized(hidden, norm.weight, norm.variance_epsilon)
    return functional.rms_norm(hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon)


class PackedModel:
    """The loss of packed rows, with gradients for the adapter.

    Attributes:
        trained: All trained tensors.
    """

    def __init__(self, model: Any, head: Tensor, longest_tokens: int, checkpointed_layers: int) -> None:
        """Run a model with its adapter attached.

        Args:
            model: PEFT's, with LoRA on all seven projections, no dropout, and the style rows.
            head: Weight of the frozen head, shape (vocabulary, width).
            longest_tokens: Of any example that will be given.
            checkpointed_layers: How many of the layers are computed again in the backward pass.
        """
        decoder = model.get_base_model().model
        self._embed, self._rotary, self._norm = decoder.embed_tokens, decoder.rotary_emb, decoder.norm
        self._layers = [_Layer(layer) for layer in decoder.layers]
        self._head, self._longest_tokens, self._checkpointed = head, longest_tokens, checkpointed_layers
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [group for layer in self._layers for group in layer.groups]
        self._factors = [factor for group in groups for factor in group.trained]
        self._copies = [copy for group in groups for copy in group.copies()]

    def update_copies(self) -> None:
        """Let the passes that follow compute with the adapter as it is now."""
        with torch.no_grad():
            torch._foreach_copy_(self._copies, self._factors)

    def loss(self, row: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        """Cross entropy summed over the answers' tokens, times ``scale`` (one number).

        Args:
            row: As ``pack`` makes it, on the model's device.
            scale: One over the labelled tokens behind the optimizer step.
        """
        hidden = self._embed(row["input_ids"])
        cosine, sine = (part[0].unsqueeze(1) for part in self._rotary(hidden, row["position_ids"]))
        hidden = hidden[0]
        for index, layer in enumerate(self._layers):
            arguments = (hidden, cosine, sine, row["starts"], self._longest_tokens)
            if index < self._checkpointed:  # nothing is random in a layer, and a CUDA graph cannot keep random states
                hidden = checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden = layer(*arguments)
        following = functional.pad(row["labels"][0, 1:], (0, 1), value=IGNORED_LABEL)
        return weighted_answer_loss(_normalized(hidden, self._norm), self._head, following, scale)
