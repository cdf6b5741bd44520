"""Whether a model's logits are what its output head gives, or are changed afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions


def decoder_of(model: Any) -> Any:
    """The part of a causal language model below its head, which gives hidden states.

    transformers 4.54 finds Gemma 3's by ``get_decoder`` alone, and GPT-NeoX's by its prefix alone.
    """
    base = _base(model)
    named = getattr(base, base.base_model_prefix, None)
    return base.get_decoder() if named is None else named


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def gives_heads_logits(model: Any) -> bool:
    """Whether nothing follows the output head; Gemma 2 caps its logits, and Granite and Cohere scale them.

    The model runs with hidden states put in the decoder's place, so large that a cap would show.
    """
    base = _base(model)
    head, decoder = base.get_output_embeddings(), decoder_of(base)
    width, like = base.get_input_embeddings().weight.shape[1], next(head.parameters())
    hidden = torch.linspace(-1000, 1000, width, device=like.device, dtype=like.dtype).expand(1, 2, width)
    given: list[torch.Tensor] = []
    own_forward = decoder.__dict__.get("forward")
    hook = head.register_forward_hook(lambda module, inputs, output: given.append(output))
    decoder.forward = lambda *arguments, **options: BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden)
    try:
        with torch.no_grad():
            ids = torch.zeros(1, 2, dtype=torch.long, device=like.device)
            logits = base(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        del decoder.forward
        if own_forward is not None:
            decoder.forward = own_forward
    return torch.equal(logits.float(), given[0].float())


def has_plain_head(model: Any) -> bool:
    """Whether logits are ``hidden @ weight.T`` and nothing else."""
    head = _base(model).get_output_embeddings()
    return isinstance(head, nn.Linear) and head.bias is None and gives_heads_logits(model)
