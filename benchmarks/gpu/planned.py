"""What ``verbosity plan`` says of GPUs that were not at hand: ``python -m benchmarks.gpu.planned OUTPUT``.

Planned, not measured: memory from the formulas that recorded runs bear out, time from a data sheet's rates and the
efficiencies that were fitted to runs on an H200.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipeline.config import GIB, PRESETS, get_target, resolve_preset
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA, write_json

SHAPE = "mistral-7b-v0.3-synthetic"
GPUS = ("a10g", "l4", "rtx-4090", "h100", "h200")


def planned() -> list[dict[str, Any]]:
    """A row for each preset and GPU, all shipped examples."""
    from pipeline.data.store import tokenised
    from pipeline.model.base_models import open_for_planning
    from pipeline.planning.devices import named_gpu
    from pipeline.planning.plan import make_plan, with_vocabulary

    target, rows = get_target(SHAPE), []
    with open_for_planning(target) as base:
        shape = with_vocabulary(base.shape, len(base.tokenizer))
        for name in PRESETS:
            preset = resolve_preset(name, target)
            data, _ = tokenised(TRAINING_DATA, base.tokenizer, base.folder, preset.training)
            for gpu in GPUS:
                plan = make_plan(preset, shape, data, named_gpu(gpu))
                figures = {"peak_gib": plan.peak_bytes / GIB, "fits": plan.fits, "duration_s": plan.duration_s}
                rows.append({"preset": name, "gpu": gpu, "examples": plan.examples, "step": plan.step, **figures})
    return rows


def to_markdown(document: Mapping[str, Any]) -> str:
    """The rows as a table."""
    cells = [
        (
            row["preset"],
            row["gpu"],
            f"{row['peak_gib']:.1f} GiB" + ("" if row["fits"] else ", does not fit"),
            f"{row['duration_s'] / 60:.1f} min",
            f"{row['examples'] / row['duration_s']:.1f}",
            row["step"],
        )
        for row in document["rows"]
    ]
    headers = ("preset", "GPU", "planned peak", "planned time", "examples/s", "a step")
    return tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True) + "\n"


def main() -> int:
    """Plan, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the JSON file to write")
    options = parser.parse_args()
    from benchmarks.gpu.origin import origin

    document = {"command": "python -m benchmarks.gpu.planned", **origin(), "rows": planned()}
    write_json(options.output, document)
    print(to_markdown(document))
    return 0


if __name__ == "__main__":
    apply_environment()
    sys.exit(main())
