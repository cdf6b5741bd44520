"""What ``pipeline.compat`` hides, and that the sets really differ as docs/versions.md says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BatchEncoding, TrainingArguments

from pipeline.compat import TRANSFORMERS_5, checkpointing_arguments, dtype_argument, warmup_arguments
from pipeline.model.tokenizer import style_token_ids

ROOT = Path(__file__).resolve().parents[3]
MESSAGES = [{"role": "user", "content": "Hi"}]


def dtype_of(folder: Path, **arguments: Any) -> torch.dtype:
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **arguments)
    return next(model.parameters()).dtype  # type: ignore[no-any-return]


def warmup_steps(folder: Path, **arguments: Any) -> int:
    """Of 100 steps."""
    return TrainingArguments(str(folder), use_cpu=True, report_to=[], **arguments).get_warmup_steps(100)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_loaded_as_asked(dtype: torch.dtype, tiny_folder: Path) -> None:
    assert dtype_of(tiny_folder, **dtype_argument(dtype)) is dtype


def test_warm_up_is_a_share_of_the_steps(tmp_path: Path) -> None:
    assert warmup_steps(tmp_path, **warmup_arguments(0.03)) == 3


@pytest.mark.parametrize("enabled", [True, False])
def test_checkpointing_is_switched_without_reentrance(enabled: bool, tmp_path: Path) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], **checkpointing_arguments(enabled))
    assert arguments.gradient_checkpointing is enabled
    assert arguments.gradient_checkpointing_kwargs == {"use_reentrant": False}


def takes_dtype(folder: Path, tokenizer: Any, scratch: Path) -> bool:
    return dtype_of(folder, dtype=torch.bfloat16) is torch.bfloat16


def takes_a_share_as_warmup_steps(folder: Path, tokenizer: Any, scratch: Path) -> bool:
    return warmup_steps(scratch, warmup_steps=0.03) == 3


def renames_checkpointing(folder: Path, tokenizer: Any, scratch: Path) -> bool:
    return "activation_checkpointing" in TrainingArguments.__dataclass_fields__


def template_gives_a_batch(folder: Path, tokenizer: Any, scratch: Path) -> bool:
    return isinstance(tokenizer.apply_chat_template(MESSAGES), BatchEncoding)


def lists_every_control_token(folder: Path, tokenizer: Any, scratch: Path) -> bool:
    return "[INST]" in tokenizer.all_special_tokens


def trains_rows_of_an_untied_head(folder: Path, tokenizer: Any, scratch: Path) -> bool:
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = style_token_ids(tokenizer)
    config = LoraConfig(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": rows, "lm_head": rows})
    ids = torch.tensor([[1, 3, 4]])
    get_peft_model(model, config)(input_ids=ids, labels=ids).loss.backward()
    return True


DIFFERENCES: dict[str, Callable[[Path, Any, Path], bool]] = {
    "`from_pretrained(dtype=)`": takes_dtype,
    "`warmup_steps` below 1": takes_a_share_as_warmup_steps,
    "`activation_checkpointing`": renames_checkpointing,
    "`apply_chat_template`": template_gives_a_batch,
    "`all_special_tokens`": lists_every_control_token,
    "`trainable_token_indices` of `lm_head`": trains_rows_of_an_untied_head,
}
"""By its name in docs/versions.md: whether the current set's behaviour is there; the golden pins refuse or lack it."""


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_sets_differ_as_the_page_says(name: str, tiny_folder: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    try:
        found = DIFFERENCES[name](tiny_folder, tiny_tokenizer, tmp_path)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError):
        found = False
    assert found is TRANSFORMERS_5


def test_the_page_lists_each() -> None:
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (`.+?) \|", page, flags=re.MULTILINE) == list(DIFFERENCES)


def test_versions_are_asked_for_in_one_place() -> None:
    asking = re.compile(
        r"__version__|packaging|TRANSFORMERS_5|__dataclass_fields__|hasattr\(transformers|inspect\.signature"
    )
    modules = [path for path in (ROOT / "pipeline").rglob("*.py") if asking.search(path.read_text(encoding="utf-8"))]
    # The doctor only tells them.
    assert [path.name for path in modules if path.parent.name != "doctor"] == ["compat.py"]
