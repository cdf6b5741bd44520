"""Whether a model's logits are what its output head gives, or are changed afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions


def gives_heads_logits(model: Any) -> bool:
    """Whether nothing follows the output head; Gemma 2 caps its logits, and Granite and Cohere scale them.

    The model runs with hidden states put in the decoder's place, so large that a cap would show.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, decoder = base.get_output_embeddings(), getattr(base, base.base_model_prefix)
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
    head = (model.get_base_model() if hasattr(model, "get_base_model") else model).get_output_embeddings()
    return isinstance(head, nn.Linear) and head.bias is None and gives_heads_logits(model)
