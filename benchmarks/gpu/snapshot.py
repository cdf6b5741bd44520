"""What lay in GPU memory when it was fullest, from a recording of torch's allocator.

Nothing here needs torch: a recording is lists and dicts, as ``torch.cuda.memory._snapshot`` returns them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pipeline.config import GIB

ALLOCATOR_ROUNDING_BYTES = 512
"""Torch's CUDA allocator hands out multiples of this."""
CHANGES = {"alloc": 1, "free_completed": -1}
"""Events that change what is allocated; the others tell of segments."""
NAMED_STACKS = 12
"""Places in the code that a summary names, those that held most first."""
LOSS_FUNCTIONS = frozenset({"ForCausalLMLoss", "fixed_cross_entropy", "cross_entropy"})
LOSS_MODULE = "frozen_head_loss.py"

LONG_LIVED = ("4-bit weights", "other base weights", "adapter", "gradients", "optimizer")
"""Components whose tensors are known by their address."""
ACTIVATIONS, LOGITS = "activations", "logits and loss"


@dataclass(frozen=True)
class Shapes:
    """Sizes by which an allocation without a Python stack is recognised; autograd's own have none.

    Attributes:
        vocabulary_size: Tokens, style tokens included.
        hidden_size: Width of the model.
        trains_head: Whether gradients as large as the whole head flow.
    """

    vocabulary_size: int
    hidden_size: int
    trains_head: bool

    def component(self, size_bytes: int) -> str | None:
        """What a block of this size must be; None if its size does not say."""
        column_bytes = 2 * self.vocabulary_size
        if self.trains_head and size_bytes in {_rounded(self.hidden_size * column_bytes * times) for times in (1, 2)}:
            return "gradients"
        return LOGITS if size_bytes == _rounded(round(size_bytes / column_bytes) * column_bytes) else None


def peak_of(
    trace: Sequence[Mapping[str, Any]], persistent: Mapping[int, tuple[str, int]], before_bytes: int, shapes: Shapes
) -> dict[str, Any]:
    """Find the fullest moment of a recording and say what was there.

    Args:
        trace: Events of one device in their order: ``action``, ``addr``, ``size`` in bytes, ``frames``.
        persistent: Component and size in bytes of each long-lived tensor, by its address, those made during the
            recording (gradients) too.
        before_bytes: What was allocated when the recording began.
        shapes: Sizes that are recognised.

    Returns:
        ``allocated_gib`` at the peak, whether the optimizer was stepping (``in_update``), GiB of each component, and
        the places that held most of the rest.
    """
    allocated = peak_bytes = before_bytes
    peak_index = -1
    for index, event in enumerate(trace):
        if event["action"] in CHANGES:
            allocated += CHANGES[event["action"]] * _rounded(event["size"])
            if allocated > peak_bytes:
                peak_index, peak_bytes = index, allocated
    blocks: dict[int, Mapping[str, Any]] = {}
    earlier_bytes = before_bytes
    for event in trace[: peak_index + 1]:
        if event["action"] == "alloc":
            blocks[event["addr"]] = event
        elif event["action"] == "free_completed" and blocks.pop(event["addr"], None) is None:
            earlier_bytes -= _rounded(event["size"])  # it was there before
    summary = _summary(blocks.values(), persistent, earlier_bytes, peak_bytes, shapes)
    return {"in_update": any(map(_is_of_optimizer, blocks.values())), **summary}


def _summary(
    blocks: Iterable[Mapping[str, Any]],
    persistent: Mapping[int, tuple[str, int]],
    earlier_bytes: int,
    peak_bytes: int,
    shapes: Shapes,
) -> dict[str, Any]:
    sizes: Counter[str] = Counter(dict.fromkeys((*LONG_LIVED, ACTIVATIONS, LOGITS, "other"), 0))
    stacks: Counter[tuple[str, str]] = Counter()
    made = set()
    for block in blocks:
        made.add(block["addr"])
        component = _component(block, persistent, shapes)
        size_bytes = _rounded(block["size"])
        sizes[component] += size_bytes
        if component not in LONG_LIVED:
            stacks[component, place(block.get("frames", ()))] += size_bytes
    for address, (component, size_bytes) in persistent.items():
        if address not in made and component != "gradients":
            sizes[component] += _rounded(size_bytes)
            earlier_bytes -= _rounded(size_bytes)
    sizes["other"] = max(0, earlier_bytes)  # cuBLAS's workspaces, inputs, copies that autocast keeps
    return {
        "allocated_gib": peak_bytes / GIB,
        "components_gib": {name: size / GIB for name, size in sizes.items()},
        "largest_places": [
            {"component": component, "place": where, "gib": size / GIB}
            for (component, where), size in stacks.most_common(NAMED_STACKS)
        ],
    }


def _component(block: Mapping[str, Any], persistent: Mapping[int, tuple[str, int]], shapes: Shapes) -> str:
    known, size_bytes = persistent.get(block["addr"]), _rounded(block["size"])
    if known is not None and _rounded(known[1]) == size_bytes:
        return known[0]
    frames = block.get("frames", ())
    if _is_of_optimizer(block):
        return "optimizer"
    if (recognised := shapes.component(size_bytes)) is not None:
        return recognised
    in_loss = any(f["name"] in LOSS_FUNCTIONS or PurePath(f["filename"]).name == LOSS_MODULE for f in frames)
    return LOGITS if in_loss else ACTIVATIONS


def _is_of_optimizer(block: Mapping[str, Any]) -> bool:
    return any("optim" in PurePath(frame["filename"]).parts for frame in block.get("frames", ()))


def place(frames: Sequence[Mapping[str, Any]]) -> str:
    """Where a block was allocated: the two innermost Python frames of the libraries that define the model."""
    packages = ("transformers", "peft", "bitsandbytes", "pipeline")
    known = [frame for frame in frames if set(packages) & set(PurePath(frame["filename"]).parts)]
    named = [f"{PurePath(frame['filename']).name}:{frame['line']} {frame['name']}" for frame in known[:2]]
    return " < ".join(named) or "autograd"


def _rounded(size_bytes: int) -> int:
    return -(-size_bytes // ALLOCATOR_ROUNDING_BYTES) * ALLOCATOR_ROUNDING_BYTES
