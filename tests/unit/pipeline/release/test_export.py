"""The exported folder answers as the trained model does, in a process that knows nothing of this project.

GGUF files and engines other than transformers: ``tests/engines``.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.cli import main
from pipeline.config import Style
from pipeline.errors import PipelineError
from pipeline.files import weights_digest
from pipeline.generation.generate import styled_prompt_ids
from pipeline.model.loading import LoadedModel, load_trained, load_untrained
from pipeline.release import export as export_module
from pipeline.release.checkpoints import write_merged
from pipeline.release.export import export
from pipeline.release.proof import ROUNDED_AGAIN, Proof
from pipeline.run_folder import RunFolder
from pipeline.training.train import train
from tests.support import tiny_request

PAGE = Path(__file__).resolve().parents[4] / "docs" / "export.md"
PROOF = Proof(12, 500, 0.0, 0.01, 0.1, 0.5)


@pytest.fixture(scope="module")
def exported(taught: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "model"
    assert main(["export", "--run", str(taught.path), "--output", str(output)]) == 0
    return output


def run_code(code: str, folder: Path) -> str:
    """What a code block prints, in a process outside the project."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def code_block(document: Path, containing: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def next_token(loaded: LoadedModel) -> torch.Tensor:
    """Log-probabilities after a terse prompt; not those of the two style tokens, which no model is trained to answer.

    A plain base starts their rows of the head otherwise.
    """
    with torch.inference_mode():
        ids = torch.tensor([styled_prompt_ids(loaded.tokenizer, "What is rate limiting?", Style.TERSE)])
        return log_probabilities(loaded.model(input_ids=ids).logits[0, -1].float())


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits[: -len(Style)].log_softmax(-1)


@pytest.fixture(scope="module")
def trained_and_untrained(taught: RunFolder) -> tuple[torch.Tensor, torch.Tensor]:
    return next_token(load_trained(taught)), next_token(load_untrained(taught))


PRINT_LOGITS = """
import json, torch
with torch.inference_mode():
    print("RESULT", json.dumps(model(**inputs).logits[0, -1].float().tolist()))
"""


def printed(output: str) -> torch.Tensor:
    (line,) = [line for line in output.splitlines() if line.startswith("RESULT ")]
    return log_probabilities(torch.tensor(json.loads(line.removeprefix("RESULT "))))


@pytest.mark.slow
@pytest.mark.versions
def test_the_cards_own_code_gives_the_trained_models_answer(
    exported: Path, trained_and_untrained: tuple[torch.Tensor, torch.Tensor]
) -> None:
    found = printed(run_code(code_block(exported / "README.md", "generate") + PRINT_LOGITS, exported))
    trained, untrained = trained_and_untrained
    assert 5 * (found - trained).abs().mean() < (found - untrained).abs().mean()


@pytest.mark.slow
@pytest.mark.versions
def test_the_pages_code_loads_the_adapter_on_the_plain_base(
    exported: Path, tiny_folder: Path, trained_and_untrained: tuple[torch.Tensor, torch.Tensor]
) -> None:
    code = code_block(PAGE, "PeftModel").replace("exports/first", str(exported)).replace("BASE", str(tiny_folder))
    found = printed(run_code(code + PRINT_LOGITS, exported.parent))
    trained, untrained = trained_and_untrained
    assert 5 * (found - trained).abs().mean() < (found - untrained).abs().mean()


@pytest.mark.slow
def test_the_card_says_what_was_trained_on_what(taught: RunFolder, exported: Path) -> None:
    card, record = (exported / "README.md").read_text(encoding="utf-8"), taught.read_record()
    for digest in (record["adapter"]["sha256"], record["data"]["sha256"], record["base_model_sha256"]):
        assert digest in card
    assert weights_digest(exported) in card
    assert "| training.learning_rate | 0.02 |" in card
    assert "| adapter.target_modules | q_proj, k_proj, " in card
    assert "Not judged" in card
    assert json.loads((exported / "export.json").read_text(encoding="utf-8"))["proof"]["answer_count"] == 12


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"share": 0.98, "successes": 118, "trials": 120}, "| style.some | PASS | share 118 of 120 |"),
        (4.1269712094907405, "| style.some | PASS | share 4.127 |"),
        (True, "| style.some | PASS | share True |"),
    ],
)
def test_the_card_shows_the_verdicts_figures(
    value: Any, shown: str, taught: RunFolder, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {
        "id": "style.some",
        "outcome": "PASS",
        "bounds": [{"measure": "share"}],
        "measurements": {"share": value},
    }
    verdict = {"decision": "ACCEPTED", "criteria_version": "1", "criteria": [entry]}
    monkeypatch.setattr(export_module, "read_verdict", lambda path: verdict)
    content = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    card = export_module._card(taught, content, PROOF, tmp_path / "verdict.json")
    assert "**ACCEPTED**" in card
    assert shown in card


def test_no_4bit_settings_and_no_adapter_names_are_left(exported: Path) -> None:
    assert "quantization_config" not in json.loads((exported / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(exported / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    assert not [name for name in tensors if "lora" in name or "base_layer" in name]
    assert not (exported / "adapter" / "README.md").exists()


@pytest.mark.slow
@pytest.mark.versions
def test_a_golden_adapter_is_merged_with_its_embeddings(tmp_path: Path) -> None:
    train(tiny_request(tmp_path / "run", "golden", accumulation_steps=4, learning_rate=2e-2))
    proof = export(RunFolder(tmp_path / "run"), tmp_path / "model", dtype="bfloat16")
    assert proof.holds
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.bfloat16"}


def test_an_export_that_loses_the_adapter_is_not_written(
    taught: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(trained: Any, *arguments: Any) -> None:
        for name, parameter in trained.model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        write_merged(trained, *arguments)

    monkeypatch.setattr("pipeline.model.loading.for_inference", lambda model: model)  # merges it on some CPUs
    monkeypatch.setattr(export_module, "write_merged", lose)
    with pytest.raises(PipelineError, match="not written, since the exported model answers differently: ") as refusal:
        export(taught, tmp_path / "model")
    assert "; its absolute change is " in str(refusal.value)
    assert "Proof" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mean_difference_nats": 0.03}, "changes by 0.0300 nats on average, the limit is 0.02"),
        ({"mean_difference_nats": -0.03}, "changes by -0.0300 nats on average, the limit is 0.02"),
        ({"mean_absolute_difference_nats": 0.06}, "absolute change is 0.0600 nats on average, the limit is 0.05"),
        ({"mean_difference_nats": float("nan")}, "changes by nan nats"),
        ({"mean_absolute_difference_nats": float("nan")}, "absolute change is nan nats"),
        (
            {"without_adapter_nats": 0.04},
            "leaving out the adapter changes it by 0.0400 nats, which must be at least 0.0500",
        ),
    ],
)
def test_the_proof_can_fail_and_says_why(change: dict[str, Any], reason: str) -> None:
    assert PROOF.holds
    changed = dataclasses.replace(PROOF, **change)
    assert not changed.holds
    assert reason in "; ".join(changed.violations)


def test_weights_of_four_bits_have_limits_of_their_own() -> None:
    rounded = dataclasses.replace(PROOF, mean_difference_nats=-0.09, limits=ROUNDED_AGAIN)
    assert rounded.holds
    assert "the limit is 0.1" in dataclasses.replace(rounded, mean_difference_nats=-0.11).violations[0]


def test_a_folder_that_holds_something_is_left_alone(taught: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine", encoding="utf-8")
    with pytest.raises(PipelineError, match="already exists; choose another --output"):
        export(taught, tmp_path)
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "mine"


def test_a_verdict_that_does_not_accept_the_run_is_refused(taught: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PipelineError, match="schema_version"):
        export(taught, tmp_path / "model", verdict=tmp_path / "verdict.json")
