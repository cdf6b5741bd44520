"""Tokenised training data: encoded once into an Arrow file in the cache, then memory-mapped by ``datasets``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from pipeline.config import TrainingConfig
from pipeline.data.encoding import encode
from pipeline.data.formats import DataFile, Example, find_sources, in_batches, stream_examples
from pipeline.data.source import Problems, count_lines
from pipeline.errors import PipelineError
from pipeline.files import building_folder, cache_folder, sha256_of, sha256_of_text


@dataclass(frozen=True)
class EncodingRequest:
    """Everything that determines the token ids of a data set.

    Attributes:
        sources: The files with their formats.
        tokenizer: The target's tokenizer, style tokens added.
        tokenizer_sha256: Digest of the tokenizer's files.
        max_tokens: Longest example in tokens.
        max_examples: Number of leading examples to keep; None keeps all.
    """

    sources: Sequence[DataFile]
    tokenizer: Any
    tokenizer_sha256: str
    max_tokens: int
    max_examples: int | None

    @cached_property
    def data_sha256(self) -> str:
        """Digest of the data files."""
        return sha256_of(*(source.path for source in self.sources))

    @property
    def key(self) -> str:
        """Digest of everything the result depends on, including the code of this folder."""
        code = sha256_of(*sorted(Path(__file__).parent.glob("*.py")))
        tokens = (self.tokenizer_sha256, self.tokenizer.chat_template, str(self.max_tokens), str(self.max_examples))
        return sha256_of_text(code, self.data_sha256, *tokens)


def tokenised(
    path: Path, tokenizer: Any, base_folder: Path, training: TrainingConfig
) -> tuple[Any, dict[str, str | int]]:
    """Encode a data set, or take it from the cache.

    Args:
        path: A data file or a folder of them.
        tokenizer: The target's tokenizer, style tokens added.
        base_folder: The base model's folder, which has the tokenizer's files.
        training: Limits of length and number of examples.

    Returns:
        The rows as in ``encoded_dataset``, and the run record's ``data``: file, digest and number of examples.

    Raises:
        PipelineError: Bad data, named by file, line and field.
    """
    sources = find_sources(path)
    for source in sources:
        print(f"data: {source.path.name} ({source.format.name})", flush=True)
    tokenizer_sha256 = sha256_of(*sorted(base_folder.glob("tokenizer*")))
    request = EncodingRequest(sources, tokenizer, tokenizer_sha256, training.max_sequence_tokens, training.max_examples)
    data = encoded_dataset(request)
    return data, {"file": path.name, "sha256": request.data_sha256, "examples": len(data)}


def encoded_dataset(request: EncodingRequest) -> Any:
    """The tokenised examples as a memory-mapped ``datasets.Dataset``, in file order.

    Every row of the files is checked first, including those beyond ``max_examples``.

    Returns:
        Rows of ``input_ids`` (token ids), ``prompt_length`` (tokens), ``length`` (tokens) and ``style``.

    Raises:
        PipelineError: Bad data, named by file, line and field.
    """
    from datasets import Dataset

    if request.max_examples is not None and request.max_examples < 1:
        raise PipelineError(f"max_examples must be at least 1, not {request.max_examples}.")
    folder = cache_folder() / "data" / request.key[:24]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with building_folder(folder) as temporary:
                _write(request, temporary / "examples.arrow")
    return Dataset.from_file(str(folder / "examples.arrow"))


def _write(request: EncodingRequest, path: Path) -> None:
    import pyarrow as pa

    schema = pa.schema(
        {"input_ids": pa.list_(pa.int32()), "prompt_length": pa.int32(), "length": pa.int32(), "style": pa.string()}
    )
    problems = Problems()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in _leading(stream_with_progress(request.sources), request.max_examples):
            rows = encode(request.tokenizer, batch, request.max_tokens, problems)
            if not problems.count:
                columns = [
                    {**row, "length": len(row["input_ids"]), "style": example.style.value}
                    for row, example in zip(rows, batch, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_pylist(columns, schema=schema))
    problems.raise_any()


def stream_with_progress(sources: Sequence[DataFile]) -> Iterator[Example]:
    """``stream_examples`` with a progress bar on standard error."""
    examples = sum(count_lines(source.path) * source.format.examples_per_row for source in sources)
    yield from tqdm(stream_examples(sources), total=examples or None, desc="reading data", unit=" examples")


def _leading(examples: Iterator[Example], limit: int | None) -> Iterator[list[Example]]:
    """The first ``limit`` examples in batches; the rest is read, and thus checked, but not kept."""
    yield from in_batches(itertools.islice(examples, limit))
    for _ in examples:
        pass
