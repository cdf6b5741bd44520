"""llama.cpp as far as exports use it: a GGUF file is a packed model folder here, and transformers computes with it."""

from __future__ import annotations

import ctypes
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from jinja2 import Environment
from numpy.typing import NDArray
from transformers import AutoTokenizer

from pipeline.release.checkpoints import load_plain
from pipeline.release.gguf_files import ADAPTER_CONVERTER, MODEL_CONVERTER

_CONVERTER = """
import pathlib, sys, zipfile
source, outfile = pathlib.Path(sys.argv[1]), sys.argv[sys.argv.index("--outfile") + 1]
files = [path for path in source.rglob("*") if path.is_file()]
with zipfile.ZipFile(outfile, "w") as packed:
    for file in files:
        packed.write(file, file.relative_to(source))
"""


def write_converters(folder: Path, code: str = _CONVERTER) -> Path:
    """Write both converters with this code; the default packs the model's folder."""
    folder.mkdir(exist_ok=True)
    for name in (MODEL_CONVERTER, ADAPTER_CONVERTER):
        (folder / name).write_text(code, encoding="utf-8")
    return folder


class Llama:
    """An opened file.

    Attributes:
        opened: Those that were opened and not closed.
        bos_count: How often a prompt begins; 1 is right.
    """

    opened: ClassVar[list[Llama]] = []
    bos_count: ClassVar[int] = 1

    def __init__(self, path: str, *, n_ctx: int, **_: Any) -> None:
        self.opened.append(self)
        self._n_ctx = n_ctx
        with tempfile.TemporaryDirectory() as temporary:
            shutil.unpack_archive(path, temporary, "zip")
            self._tokenizer = AutoTokenizer.from_pretrained(temporary)
            self._model = load_plain(Path(temporary), torch.float32)
        self.metadata = {"tokenizer.chat_template": self._tokenizer.chat_template}
        self.reset()

    def token_bos(self) -> int:
        return int(self._tokenizer.bos_token_id)

    def token_eos(self) -> int:
        return int(self._tokenizer.eos_token_id)

    def detokenize(self, tokens: list[int], *, special: bool) -> bytes:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not special)).encode()

    def tokenize(self, text: bytes, *, add_bos: bool, special: bool) -> list[int]:
        assert special, "the style tokens are special"
        ids: list[int] = self._tokenizer(text.decode(), add_special_tokens=False)["input_ids"]
        return [self.token_bos()] * (self.bos_count - 1 + add_bos) + ids

    def reset(self) -> None:
        self.scores: NDArray[Any] = torch.full((self._n_ctx, 1), torch.nan).numpy()

    def eval(self, tokens: list[int]) -> None:
        with torch.inference_mode():
            self.scores = self._model(input_ids=torch.tensor([tokens[: self._n_ctx]])).logits[0].numpy()

    def close(self) -> None:
        self.opened.remove(self)


class _Formatter:
    def __init__(self, template: str, eos_token: str, bos_token: str) -> None:
        self._template, self._known = template, {"eos_token": eos_token, "bos_token": bos_token}

    def __call__(self, *, messages: list[dict[str, str]]) -> SimpleNamespace:
        prompt = Environment(autoescape=False).from_string(self._template).render(messages=messages, **self._known)
        return SimpleNamespace(prompt=prompt, added_special=True)


class _Parameters(ctypes.Structure):
    _fields_ = (("ftype", ctypes.c_int),)


def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Put the package in the place of llama-cpp-python."""

    def quantize(source: bytes, final: bytes, parameters: Any) -> int:
        shutil.copyfile(source, final)
        return 0

    package, chat_format = ModuleType("llama_cpp"), ModuleType("llama_cpp.llama_chat_format")
    vars(package).update(
        Llama=Llama,
        LLAMA_FTYPE_MOSTLY_Q8_0=7,
        LLAMA_FTYPE_MOSTLY_Q4_K_M=15,
        llama_model_quantize_default_params=_Parameters,
        llama_model_quantize=quantize,
    )
    vars(chat_format).update(Jinja2ChatFormatter=_Formatter)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, chat_format.__name__, chat_format)
    return package
