"""Faults of runs and bases that happened to others first, with the public thread that reports them, if there is one."""

from __future__ import annotations

from sabotage import bases, damage, training
from sabotage.fault import (
    ADAPTER_SAVES,
    COMPLETES,
    GENERATE,
    LOAD,
    STARTS,
    Fault,
)

GITHUB = "https://github.com/"
NOT_SERVED = (STARTS, GENERATE, LOAD)
"""What fails with an adapter that is not loaded."""

_ADAPTER = (
    Fault(
        "rank-scaled",
        "adapter_config.json says rank-stabilised scaling, which training did not use",
        (STARTS,),
        NOT_SERVED,
        damage=damage.scale_by_rank,
        seen=GITHUB + "vllm-project/vllm/issues/10798",
    ),
    Fault(
        "alpha-doubled",
        "adapter_config.json says twice the scale of the training",
        (STARTS,),
        NOT_SERVED,
        damage=damage.double_alpha,
        seen=GITHUB + "hao-ai-lab/FastVideo/pull/870",
    ),
    Fault(
        "modules-dropped",
        "adapter_config.json leaves out the modules of the MLP",
        (STARTS, ADAPTER_SAVES),
        NOT_SERVED,
        damage=damage.drop_modules,
        seen=GITHUB + "huggingface/peft/issues/1932",
    ),
    Fault(
        "tensor-surplus",
        "the adapter file has a tensor that the model does not take",
        (ADAPTER_SAVES, STARTS),
        NOT_SERVED,
        damage=damage.add_surplus_tensor,
        seen=GITHUB + "huggingface/sentence-transformers/pull/3865",
    ),
    Fault(
        "adapter-of-another-base",
        "the adapter is one of a narrower base",
        (ADAPTER_SAVES, STARTS),
        NOT_SERVED,
        damage=damage.fit_another_base,
        seen=GITHUB + "huggingface/peft/issues/460",
    ),
    Fault(
        "rows-lost",
        "the adapter file lacks the trained rows of the new tokens",
        (ADAPTER_SAVES, STARTS),
        NOT_SERVED,
        damage=damage.lose_style_rows,
        seen=GITHUB + "huggingface/peft/issues/1300",
    ),
    Fault(
        "tensors-empty",
        "a process without the shards saved the adapter: names without values",
        (ADAPTER_SAVES, STARTS),
        NOT_SERVED,
        damage=damage.empty_tensors,
        seen=GITHUB + "huggingface/peft/issues/2892",
    ),
    Fault(
        "weights-pickled",
        "the adapter is a pickle, which can run code when it is loaded",
        (ADAPTER_SAVES, STARTS),
        NOT_SERVED,
        damage=damage.pickle_weights,
    ),
)

_BASE = (
    Fault(
        "template-changed",
        "the base's chat template has a system prompt that training had not",
        (STARTS,),
        NOT_SERVED,
        inject=bases.change_template,
        seen=GITHUB + "llama-farm/llamafarm/pull/820",
    ),
    Fault(
        "eos-changed",
        "the tokenizer's EOS is another token than in training",
        (STARTS,),
        NOT_SERVED,
        inject=bases.change_eos,
        seen=GITHUB + "vllm-project/vllm/issues/1136",
    ),
    Fault(
        "tokenizer-changed",
        "the tokenizer's settings are of another release",
        (STARTS,),
        NOT_SERVED,
        inject=bases.change_tokenizer,
        seen=GITHUB + "huggingface/transformers/pull/24565",
    ),
    Fault(
        "rope-changed",
        "config.json says another base of the rotary angles",
        (STARTS,),
        NOT_SERVED,
        inject=bases.change_rope,
        seen=GITHUB + "deepspeedai/DeepSpeed/pull/8345",
    ),
    Fault(
        "base-twin",
        "the base is a near twin: one of its tensors is a hundredth larger",
        (STARTS,),
        NOT_SERVED,
        inject=bases.swap_for_near_twin,
        seen=GITHUB + "unslothai/unsloth/issues/877",
    ),
)

_TRAINING = (
    Fault(
        "gradients-lost",
        "no gradient reaches the LoRA matrices",
        (ADAPTER_SAVES,),
        trains=True,
        inject=training.lose_gradients,
        seen=GITHUB + "cloneofsimo/lora/issues/26",
    ),
    Fault(
        "fresh-adapter-saved",
        "a fresh adapter is saved in place of the trained one",
        (ADAPTER_SAVES,),
        trains=True,
        inject=training.save_fresh_adapter,
        seen=GITHUB + "huggingface/peft/issues/793",
    ),
    Fault(
        "disk-full", "the disk is full when the adapter is saved", (COMPLETES,), trains=True, inject=training.fill_disk
    ),
    Fault(
        "crash-at-exit",
        "training ends with a crash after its last line",
        (COMPLETES,),
        trains=True,
        inject=training.crash_at_exit,
    ),
    Fault("log-rotated", "the first half of the metrics is gone", (COMPLETES,), damage=damage.cut_log),
)

REPORTED = (*_ADAPTER, *_BASE, *_TRAINING)
