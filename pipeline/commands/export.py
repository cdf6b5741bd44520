"""``verbosity export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, run_arguments
from pipeline.run_folder import RunFolder


def _configure(parser: argparse.ArgumentParser) -> None:
    run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; it must be new")
    parser.add_argument(
        "--format",
        choices=("merged", "adapter", "gguf", "gguf-adapter"),
        default="merged",
        help="merged: for transformers and vLLM; adapter: plain LoRA beside a base, for PEFT and vLLM; gguf and"
        " gguf-adapter: the same for llama.cpp (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "f16", "q8_0", "q4_k_m"),
        help="type of the weights: float32 or bfloat16, of GGUF f16, q8_0 or q4_k_m (default: float32, f16)",
    )
    parser.add_argument("--verdict", type=Path, metavar="FILE", help="verdict.json that accepts the run, for the card")
    parser.add_argument(
        "--llama-cpp", type=Path, metavar="DIR", help="folder with llama.cpp's converters, for the GGUF formats"
    )


def _run(arguments: argparse.Namespace) -> int:
    from pipeline.release.export import export

    proof = export(
        RunFolder(arguments.run),
        arguments.output,
        form=arguments.format,
        dtype=arguments.dtype,
        verdict=arguments.verdict,
        device=arguments.device,
        base_model=arguments.base_model,
        converters=arguments.llama_cpp,
    )
    print(
        f"exported to {arguments.output}: log-probabilities of {proof.token_count} tokens differ by"
        f" {proof.mean_absolute_difference_nats:.4f} nats on average (signed {proof.mean_difference_nats:+.4f}, largest"
        f" {proof.max_absolute_difference_nats:.3f}), without the adapter by {proof.without_adapter_nats:.3f}"
    )
    return 0


COMMAND = Command("write a run's model in a form that other engines load", _configure, _run, extra="train")
