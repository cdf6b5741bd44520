"""A target's weights, prepared once and timed: ``python -m benchmarks.gpu.weights``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pipeline.config import TARGETS
from pipeline.environment import apply_environment
from pipeline.files import write_json

apply_environment()  # before torch is imported


def main() -> int:
    """Prepare the weights and write how long it took and how large they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=tuple(TARGETS), required=True)
    parser.add_argument("--base-model", metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args()
    from benchmarks.gpu.origin import origin
    from pipeline.model.base_models import base_model_folder

    started = time.perf_counter()
    folder = base_model_folder(TARGETS[options.target], options.base_model)
    size_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    figures = {"target": options.target, "seconds": time.perf_counter() - started, "size_bytes": size_bytes}
    write_json(options.output, {**origin(), **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
