"""Forward and backward pass over one packed row: replayed as a CUDA graph, or on a CPU a share of it on each core.

Launching the thousands of kernels of a pass takes longer than running them. So on a GPU the first row runs as it is,
which makes everything that is made only once, and then the pass is recorded for each of the few row lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.model.openmp import map_on_cores
from pipeline.training.collation import split_row
from pipeline.training.packed_model import PackedModel

ROW_TENSORS = ("input_ids", "position_ids", "labels", "starts")


class PackedStep:
    """Calling it adds a row's gradients to those of the trained tensors and returns its loss."""

    def __init__(self, model: PackedModel, row_lengths: Sequence[int]) -> None:
        """Prepare nothing yet.

        Args:
            model: What is run.
            row_lengths: The lengths of rows that will be given, in tokens.
        """
        self._model, self._row_lengths = model, sorted(set(row_lengths), reverse=True)
        self._gradients = [torch.zeros_like(parameter) for parameter in model.trained]
        self._recorded: dict[int, Callable[[Mapping[str, Tensor], Tensor], Tensor]] = {}

    def __call__(self, row: Mapping[str, Tensor], num_items_in_batch: Tensor | int) -> Tensor:
        """The row's loss on its device, not waited for.

        Args:
            row: As ``pack`` makes it, on the model's device.
            num_items_in_batch: Labelled tokens behind the optimizer step.
        """
        ids = row["input_ids"]
        scale = 1 / torch.as_tensor(num_items_in_batch, dtype=torch.float32, device=ids.device)
        self._attach_gradients()
        if not ids.is_cuda:
            return self._on_cores(row, scale)
        if self._recorded:
            return self._recorded[ids.shape[1]](row, scale)
        return self._first(row, scale)

    def _attach_gradients(self) -> None:
        """Keep the gradients' addresses, which graphs write to; optimizers' ``zero_grad`` lets go of them."""
        if self._model.trained[0].grad is None:
            torch._foreach_zero_(self._gradients)
            for parameter, gradient in zip(self._model.trained, self._gradients, strict=True):
                parameter.grad = gradient

    def _on_cores(self, row: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        self._model.update_copies()
        shares = split_row(row, torch.get_num_threads())

        def passed(share: Mapping[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            loss = self._model.loss(share, scale)
            return loss.detach(), torch.autograd.grad(loss, self._model.trained)

        results = map_on_cores(passed, shares, len(shares))
        for _, gradients in results:  # in the order of the shares, so that equal runs stay equal
            torch._foreach_add_(self._gradients, gradients)
        return torch.stack([loss for loss, _ in results]).sum()

    def _pass(self, row: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        self._model.update_copies()
        loss = self._model.loss(row, scale)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _first(self, row: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            loss = self._pass(row, scale)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # a graph's memory is its own
        pool = torch.cuda.graph_pool_handle()
        # The longest row first, so that the others fit into its memory; no two graphs run at a time.
        self._recorded = {length: self._record(row, length, pool, side) for length in self._row_lengths}
        return loss

    def _record(
        self, like: Mapping[str, Tensor], length: int, pool: Any, stream: torch.cuda.Stream
    ) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
        static = {name: like[name].new_zeros(1, length) for name in ROW_TENSORS if name != "starts"}
        static["starts"] = torch.zeros_like(like["starts"])
        static_scale = torch.zeros((), device=like["input_ids"].device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            loss = self._pass(static, static_scale)

        def replay(row: Mapping[str, Tensor], scale: Tensor) -> Tensor:
            for name in ROW_TENSORS:
                static[name].copy_(row[name])
            static_scale.copy_(scale)
            graph.replay()
            return loss.clone()

        return replay
