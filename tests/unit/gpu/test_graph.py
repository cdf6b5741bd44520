from __future__ import annotations

import torch

from benchmarks.gpu.graph import GraphDecoder
from pipeline.config import GenerationConfig, Style
from pipeline.generation.generate import generate_batch, styled_prompt_ids
from pipeline.model.loading import TrainedModel

TOKENS = 12


def test_a_static_cache_decodes_what_generate_does(tiny_trained: TrainedModel) -> None:
    decoder = GraphDecoder(tiny_trained.model, slots=64)
    limits = GenerationConfig(min_new_tokens=TOKENS, max_new_tokens=TOKENS)
    for prompt in ("Why?", "What is rate limiting?"):
        ids = torch.tensor([styled_prompt_ids(tiny_trained.tokenizer, prompt, Style.TERSE)])
        (expected,) = generate_batch(tiny_trained.model, tiny_trained.tokenizer, [(prompt, Style.TERSE)], limits)
        assert tuple(decoder.generate(ids, TOKENS)) == expected.token_ids
