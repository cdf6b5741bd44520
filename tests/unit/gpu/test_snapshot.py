from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu.snapshot import Shapes, peak_of, place
from pipeline.config import GIB

SHAPES = Shapes(vocabulary_size=3001, hidden_size=64, trains_head=True)
LOGITS_BYTES, HEAD_BYTES = 10 * 3001 * 4, 3001 * 64 * 4
LAYER = [{"filename": "/x/transformers/modeling.py", "line": 7, "name": "forward"}]
LOSS = [{"filename": "/x/torch/nn/functional.py", "line": 1, "name": "cross_entropy"}, *LAYER]


def alloc(address: int, size: int, frames: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"action": "alloc", "addr": address, "size": size, "frames": frames or []}


def free(address: int, size: int) -> dict[str, Any]:
    return {"action": "free_completed", "addr": address, "size": size}


def gib(peak: dict[str, Any]) -> dict[str, int]:
    return {name: round(value * GIB) for name, value in peak["components_gib"].items() if value}


def test_the_peak_is_the_fullest_moment_and_not_the_last() -> None:
    trace = [alloc(1, 2048), alloc(2, 4096), free(2, 4096), free(1, 2048), alloc(3, 1024)]
    assert peak_of(trace, {}, 512, SHAPES)["allocated_gib"] * GIB == 512 + 2048 + 4096


def test_a_recording_that_only_frees_has_its_peak_at_the_start() -> None:
    peak = peak_of([free(9, 1024)], {}, 4096, SHAPES)
    assert peak["allocated_gib"] * GIB == 4096
    assert gib(peak) == {"other": 4096}


def test_sizes_are_rounded_as_the_allocator_rounds_them() -> None:
    assert peak_of([alloc(1, 1)], {}, 0, SHAPES)["allocated_gib"] * GIB == 512


def test_every_byte_of_the_peak_has_one_component() -> None:
    persistent = {100: ("4-bit weights", 5000), 101: ("adapter", 512), 7: ("gradients", 512)}
    trace = [
        alloc(7, 512),
        alloc(1, 2048, LAYER),
        alloc(2, 1024, LOSS),
        alloc(3, LOGITS_BYTES),
        alloc(4, HEAD_BYTES),
        alloc(5, 512),
        free(5, 512),
    ]
    peak = peak_of(trace, persistent, 5120 + 512 + 1536, SHAPES)
    assert gib(peak) == {
        "4-bit weights": 5120,
        "adapter": 512,
        "gradients": 512 + -(-HEAD_BYTES // 512) * 512,
        "activations": 2048 + 512,
        "logits and loss": 1024 + -(-LOGITS_BYTES // 512) * 512,
        "other": 1536,
    }
    assert sum(peak["components_gib"].values()) == pytest.approx(peak["allocated_gib"])


def test_an_address_used_again_for_another_size_is_not_the_gradient_that_came_later() -> None:
    peak = peak_of([alloc(7, 4096, LAYER), free(7, 4096), alloc(7, 512)], {7: ("gradients", 512)}, 0, SHAPES)
    assert gib(peak) == {"activations": 4096}


def test_what_the_optimizer_makes_while_it_steps_is_its_own() -> None:
    frames = [{"filename": "/x/torch/optim/adam.py", "line": 1, "name": "_multi_tensor_adam"}]
    for size in (512, HEAD_BYTES):
        peak = peak_of([alloc(1, size, frames)], {}, 0, SHAPES)
        assert gib(peak) == {"optimizer": -(-size // 512) * 512}
        assert peak["in_update"]
    assert not peak_of([alloc(1, 512, LAYER)], {}, 0, SHAPES)["in_update"]


def test_a_head_that_is_not_trained_has_no_gradient_to_recognise() -> None:
    shapes = Shapes(vocabulary_size=3001, hidden_size=64, trains_head=False)
    assert "gradients" not in gib(peak_of([alloc(1, HEAD_BYTES)], {}, 0, shapes))


def test_the_places_that_held_most_come_first() -> None:
    peak = peak_of([alloc(1, 512), alloc(2, 1024, LAYER), alloc(3, 2048, LAYER)], {}, 0, SHAPES)
    assert [(row["place"], round(row["gib"] * GIB)) for row in peak["largest_places"]] == [
        ("modeling.py:7 forward", 3072),
        ("autograd", 512),
    ]


def test_a_place_names_the_innermost_code_of_the_model() -> None:
    outer = {"filename": "/y/peft/lora.py", "line": 3, "name": "apply"}
    torch_frame = {"filename": "/y/torch/linear.py", "line": 1, "name": "forward"}
    assert place([torch_frame, *LAYER, outer, outer]) == "modeling.py:7 forward < lora.py:3 apply"
