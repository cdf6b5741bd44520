"""The plan against what was really loaded, saved and measured."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipeline.cli import main
from pipeline.config import GIB, TARGETS, Preset, resolve_preset, with_compute_dtype
from pipeline.errors import PipelineError
from pipeline.model.adapter import attach_adapter, save_adapter
from pipeline.model.loading import hardware_preset, load_base
from pipeline.model.shapes import SHAPES, MistralShape
from pipeline.model.style_embeddings import add_style_rows
from pipeline.planning.devices import GPUS, Device, find_gpu, named_gpu, this_device
from pipeline.planning.memory_estimate import FLOAT32_BYTES, LOSS_ROWS_AT_ONCE, MicroBatch, Needs
from pipeline.planning.plan import make_plan, remedy, warn_of_memory, with_vocabulary
from pipeline.run_folder import RunFolder
from pipeline.training.frozen_head_loss import share_inputs, use_answer_loss
from pipeline.training.train import train
from tests.support import TINY, tiny_request

ROOT = Path(__file__).resolve().parents[4]
EMBEDDED_RUN = ROOT / "results" / "smollm2-135m" / "acceptance" / "run.json"
GOLDEN_ON_H200_GIB, GOLDEN_ON_H200_EXAMPLES_PER_S = 11.57, 1.78
"""What the driver said of a golden run of 334 shipped examples on Mistral's shape."""
MISTRAL = TARGETS["mistral-7b-v0.3"]
TOLERANCE = 0.15
LONG = {"length": [2048] * 8, "prompt_length": [20] * 8, "style": ["terse", "verbose"] * 4}
PRESET_NAMES = ("golden", "lean")


def adapted(folder: Path, tokenizer: Any, preset: Preset) -> Any:
    model = load_base(folder, preset.quantization, "cpu")
    add_style_rows(model, tokenizer)
    return attach_adapter(model, tokenizer, preset)


def tiny_needs(folder: Path, tokenizer: Any, preset: Preset) -> Needs:
    return Needs(with_vocabulary(MistralShape.of_folder(folder), len(tokenizer)), preset, "cpu")


def planned_gib(output: str) -> float:
    (peak,) = re.findall(r"^peak: ([\d.]+) GiB", output, flags=re.MULTILINE)
    return float(peak)


def in_a_process(*arguments: str, dtype: str = "") -> str:
    """Standard output of the command line in a fresh process, whose memory is its own."""
    patch = (
        f"import pipeline.model.loading; pipeline.model.loading.cpu_compute_dtype = lambda: {dtype!r};" if dtype else ""
    )
    applied = "from pipeline.environment import apply_environment; apply_environment();"
    script = f"import sys; {applied} {patch} from pipeline import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_weights_adapter_gradients_and_moments_are_exact(
    name: str, tiny_folder: Path, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    preset = hardware_preset(resolve_preset(name, TINY), "cpu")
    model, needs = adapted(tiny_folder, tiny_tokenizer, preset), tiny_needs(tiny_folder, tiny_tokenizer, preset)
    states = [q for p in model.parameters() if (q := getattr(p, "quant_state", None)) is not None]
    packed = sum(p.nbytes for p in model.parameters() if p.dtype == torch.uint8)
    assert needs.quantized_bytes == packed + sum(q.absmax.nbytes + q.state2.absmax.nbytes for q in states)
    frozen = [p for p in model.parameters() if not p.requires_grad and p.dtype != torch.uint8]
    assert needs.other_weights_bytes == sum(p.nbytes for p in frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert needs.trained_parameters == sum(p.numel() for p in trained)
    assert needs.adapter_bytes == sum(p.nbytes for p in trained)

    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    assert needs.gradient_bytes == sum(p.grad.nbytes for p in trained if p.grad is not None)
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert needs.optimizer_bytes == sum(moment.nbytes for moment in moments)

    save_adapter(model, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert needs.adapter_bytes == sum(tensor.nbytes for tensor in tensors.values())


def saved_bytes(model: Any, batch: MicroBatch, *, autocast: bool) -> tuple[int, int]:
    """What autograd keeps of one micro-batch: activations, and what is as wide as the vocabulary."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            saved.setdefault(place, tensor)
        return tensor

    ids = torch.randint(5, 1000, (batch.examples, batch.longest_tokens))
    rows = batch.labelled_tokens
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast),
    ):
        model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            labels=ids[:, -rows:],
            logits_to_keep=rows,
            num_items_in_batch=1,
        )
    wide = [t for t in saved.values() if model.config.vocab_size in t.shape]
    sizes = [sum(t.untyped_storage().nbytes() for t in group) for group in (saved.values(), wide)]
    return sizes[0] - sizes[1], sum(t.untyped_storage().nbytes() for t in wide if batch.logit_rows in t.shape)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", PRESET_NAMES)
def test_the_formula_of_activations_is_what_autograd_keeps(
    name: str, dtype: Any, tiny_folder: Path, tiny_tokenizer: Any
) -> None:
    preset = with_compute_dtype(resolve_preset(name, TINY, gradient_checkpointing=False), dtype)
    needs, batch = tiny_needs(tiny_folder, tiny_tokenizer, preset), MicroBatch(3, 90, 70)
    model = adapted(tiny_folder, tiny_tokenizer, preset).train()
    if preset.adapter.trains_style_rows_only:
        use_answer_loss(model)
        share_inputs(model)
    activations, log_probabilities = saved_bytes(model, batch, autocast=needs.autocast)
    assert needs.activation_bytes(batch)[0] == pytest.approx(activations, rel=0.03)
    if preset.adapter.trains_style_rows_only:
        assert log_probabilities == 0
        assert needs.logits_bytes(batch) == 2 * FLOAT32_BYTES * LOSS_ROWS_AT_ONCE * needs.shape.vocabulary_size
    else:
        assert needs.logits_bytes(batch) == 3 * log_probabilities


def test_checkpointing_keeps_one_hidden_state_per_layer() -> None:
    checkpointed = Needs(SHAPES[MISTRAL.name], resolve_preset("golden", MISTRAL), "cuda")
    whole = dataclasses.replace(checkpointed, preset=resolve_preset("golden", MISTRAL, gradient_checkpointing=False))
    batch = MicroBatch(1, 2048, 2000)
    assert checkpointed.activation_bytes(batch)[0] == 33 * 2048 * 4096 * FLOAT32_BYTES
    assert whole.activation_bytes(batch)[0] > 10 * checkpointed.activation_bytes(batch)[0]


@pytest.mark.slow
@pytest.mark.versions
def test_the_tiny_run_needs_what_was_planned(tmp_path: Path) -> None:
    few = ("--target", TINY.name, "--max-examples", "32")
    in_a_process("train", *few, "--output", str(tmp_path / "run"))
    real_gib = RunFolder(tmp_path / "run").read_record()["peak_memory"]["rss_gib"]
    assert planned_gib(in_a_process("plan", *few)) == pytest.approx(real_gib, rel=TOLERANCE)


@pytest.mark.slow
def test_the_recorded_embedded_run_needs_what_was_planned() -> None:
    record = json.loads(EMBEDDED_RUN.read_text(encoding="utf-8"))
    dtype = record["preset"]["quantization"]["compute_dtype"]
    planned = in_a_process("plan", "--target", record["target"], "--preset", record["preset"]["name"], dtype=dtype)
    (process_gib,) = re.findall(r"^process +([\d.]+)", planned, re.MULTILINE)  # the libraries' here, not there
    there_gib = planned_gib(planned) - float(process_gib) + record["rss_before_load_gib"]
    assert there_gib == pytest.approx(record["peak_memory"]["rss_gib"], rel=TOLERANCE)
    (file_mb,) = re.findall(r"adapter file of ([\d.]+) MB", planned)
    assert float(file_mb) == pytest.approx(record["adapter"]["size_bytes"] / 1e6, rel=0.01)


def test_golden_on_mistrals_shape_is_planned_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERBOSITY_CACHE", str(tmp_path))
    arguments = ["--target", "mistral-7b-v0.3-synthetic", "--preset", "golden", "--max-examples", "334"]
    assert main(["plan", *arguments, "--gpu", "h200"]) == 0
    output = capsys.readouterr().out
    assert planned_gib(output) == pytest.approx(GOLDEN_ON_H200_GIB, rel=0.02)
    assert "7,248,039,936 parameters; 310,394,880 trained" in output
    assert "adapter file of 1,241.6 MB" in output
    assert "334 examples of at most " in output
    assert " at a time; 21 steps, the last of 14 examples\n" in output
    (speed,) = re.findall(r"([\d.]+) examples/s", output)
    assert float(speed) == pytest.approx(GOLDEN_ON_H200_EXAMPLES_PER_S, rel=0.1)
    assert not (tmp_path / "targets").exists()

    assert main(["plan", *arguments, "--gpu", "rtx-4060"]) == 1
    (verdict,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("peak: ")]
    assert "does not fit the 7.60 GiB of rtx-4060; train with --preset lean, which needs " in verdict
    assert main(["plan", *arguments, "--preset", "lean", "--gpu", "rtx-4060"]) == 0
    assert "fits the 7.60 GiB of rtx-4060\n" in capsys.readouterr().out


def test_every_column_of_the_table_adds_up() -> None:
    plan = make_plan(resolve_preset("golden", MISTRAL), SHAPES[MISTRAL.name], LONG, named_gpu("a10g"))
    rows = [line.split() for line in plan.table().splitlines()[1:]]
    for column in (-3, -2, -1):
        *parts, total = (float(row[column]) for row in rows)
        assert total == pytest.approx(sum(parts), abs=0.005 * len(parts))
    assert planned_gib(plan.describe_fit()) == pytest.approx(max(float(cell) for cell in rows[-1][1:]), abs=0.01)


@pytest.mark.parametrize(
    ("device", "remedy_text"),
    [
        (Device("a small GPU", "cuda", 5 * GIB), "use a larger GPU (rtx-4060 has 7.6 GiB)"),
        (Device("this CPU", "cpu", GIB), "close other programs, or shorten the longest example (2048 tokens)"),
    ],
    ids=["gpu", "cpu"],
)
def test_what_does_not_fit_in_lean_needs_something_else(device: Device, remedy_text: str) -> None:
    plan = make_plan(resolve_preset("lean", MISTRAL), SHAPES[MISTRAL.name], LONG, device)
    assert not plan.fits
    assert remedy_text in remedy(plan, MISTRAL, LONG)


def test_train_warns_in_one_line_and_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warnings() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("memory: ")]

    train(tiny_request(tmp_path / "roomy", max_examples=4))
    assert warnings() == []
    monkeypatch.setattr("pipeline.planning.plan.this_device", lambda kind: Device("this CPU", kind, GIB // 4))
    assert train(tiny_request(tmp_path / "cramped", max_examples=4))["status"] == "completed"
    (warning,) = warnings()
    assert "does not fit the 0.25 GiB of this CPU; close other programs" in warning


def test_float32_has_no_cache_of_compiled_products() -> None:
    bfloat16 = resolve_preset("lean", TINY)
    cached_bytes, none = (
        make_plan(preset, SHAPES[TINY.name], LONG, Device("this CPU", "cpu", GIB)).components["compiled products"][0]
        for preset in (bfloat16, with_compute_dtype(bfloat16, "float32"))
    )
    assert cached_bytes > none == 0


@pytest.mark.parametrize(
    ("device_name", "gpu"),
    [("NVIDIA A10G", "a10g"), ("Tesla T4", "t4"), ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA L40S", None)],
)
def test_a_gpu_is_known_by_the_drivers_name(device_name: str, gpu: str | None) -> None:
    assert find_gpu(device_name) == (GPUS[gpu] if gpu else None)


def test_an_unknown_gpu_gets_no_invented_time() -> None:
    device = Device("NVIDIA L40S", "cuda", 44 * GIB)
    plan = make_plan(resolve_preset("lean", MISTRAL), SHAPES[MISTRAL.name], LONG, device)
    assert plan.fits
    assert plan.describe_time() == "time: unknown, NVIDIA L40S is not in the table of GPUs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "tiny-mistral", "--gpu", "l4", "--device", "cpu"], "leave out --device cpu or --gpu"),
        (["--target", "mistral-7b-v0.3"], "name the GPU to plan for: --gpu a10g|"),
    ],
)
def test_a_plan_for_nothing_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["plan", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_shape_of_a_tied_model_counts_its_embeddings_once(tmp_path: Path) -> None:
    smollm2 = MistralShape(576, 1536, 30, 9, 3, 49152, tied_head=True)
    assert smollm2.parameter_count == 134_515_008
    smollm2.config().save_pretrained(tmp_path)
    assert MistralShape.of_folder(tmp_path) == smollm2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'; use mistral or llama"),
        ({"head_dim": 8}, "head_dim is not hidden_size / num_attention_heads"),
        ({"vocab_size": None}, "lacks 'vocab_size'"),
    ],
)
def test_a_shape_that_is_not_known_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    SHAPES[TINY.name].config().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changed = {key: value for key, value in {**config, **change}.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(PipelineError, match=re.escape(message)):
        MistralShape.of_folder(tmp_path)


def test_peak_memory_is_of_this_program_and_not_of_the_one_that_started_it() -> None:
    ballast = bytearray(512 * 1024**2)
    ballast[::4096] = b"x" * len(ballast[::4096])
    code = "from pipeline.memory import peak_resident_bytes; print(peak_resident_bytes())"
    own = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert int(own) < 200 * 1024**2 < len(ballast)


def test_padded_training_on_an_unknown_gpu_gets_no_invented_time() -> None:
    device = Device("NVIDIA L40S", "cuda", 44 * GIB)
    plan = make_plan(resolve_preset("golden", MISTRAL), SHAPES[MISTRAL.name], LONG, device)
    assert plan.describe_time() == "time: unknown, NVIDIA L40S is not in the table of GPUs"


def test_where_no_gpu_is_large_enough_the_data_must_be_shorter() -> None:
    giant = dataclasses.replace(SHAPES[MISTRAL.name], hidden_size=65536)
    plan = make_plan(resolve_preset("lean", MISTRAL), giant, LONG, Device("a small GPU", "cuda", GIB))
    assert remedy(plan, MISTRAL, LONG) == (
        "no GPU of the table is large enough; shorten the longest example (2048 tokens)"
    )


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_data_without_an_example_cannot_be_planned(preset: str) -> None:
    nothing: dict[str, Any] = {"length": [], "prompt_length": [], "style": []}
    with pytest.raises(PipelineError, match="the data holds no example; name other data with --data"):
        make_plan(resolve_preset(preset, TINY), SHAPES[TINY.name], nothing, Device("this CPU", "cpu", GIB))


def test_a_base_that_cannot_be_planned_is_said_and_no_reason_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_memory(TINY, resolve_preset("lean", TINY), tmp_path, 300, LONG, "cpu")
    assert capsys.readouterr().err.startswith(f"memory: not planned: {tmp_path}/config.json: cannot be read (")


def test_a_gpu_of_this_machine_is_planned_with_the_context_that_asking_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA A10G")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * GIB, 22 * GIB))
    device = this_device("cuda")
    assert (device.name, device.gpu) == ("NVIDIA A10G", GPUS["a10g"])
    assert 20 * GIB < device.available_bytes < 21 * GIB


def test_a_plan_without_torch_says_what_it_assumes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("pipeline.commands.plan", "pipeline.planning.devices", "pipeline.memory"):
        monkeypatch.setattr(f"{module}.torch_is_installed", lambda: False)
    assert main(["plan", "--target", "tiny-mistral", "--max-examples", "16"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == (
        "plan: torch is not installed; assuming bfloat16 arithmetic and one thread per core"
    )
    assert "\nplan: tiny-mistral, lean, bfloat16: " in captured.out
    assert this_device("cpu").threads == psutil.cpu_count(logical=False)
    with pytest.raises(PipelineError, match="no CUDA device found; name the GPU to plan for"):
        this_device("cuda")
