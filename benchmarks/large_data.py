"""``make large-data``: memory and time of reading and tokenising far more data than the shipped set.

Writes pairs of random words with the shipped rows' lengths to a temporary file, reads them as training does, each size
in its own process, and writes ``large_data.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import MIB, get_target
from pipeline.environment import apply_environment
from pipeline.files import cache_folder
from pipeline.memory import peak_resident_bytes

apply_environment()  # before torch is imported

EXAMPLE_COUNTS = (2_000, 20_000, 200_000)
TERSE_WORDS, VERBOSE_WORDS = 18, 112


def write_pairs(path: Path, example_count: int) -> None:
    """Write ``example_count`` distinct examples as pairs, two per line."""
    generator = random.Random(0)
    vocabulary = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(5000)]
    with path.open("w", encoding="utf-8") as handle:
        for number in range(example_count // 2):
            row = {"prompt": f"What is {number}?", "field": "made up"}
            row["terse"] = " ".join(generator.choices(vocabulary, k=TERSE_WORDS))
            row["verbose"] = " ".join(generator.choices(vocabulary, k=VERBOSE_WORDS))
            handle.write(json.dumps(row) + "\n")


def read_once(path: Path) -> dict[str, Any]:
    """Read and tokenise a file as training does, then load it from the cache; returns figures of this process."""
    from pipeline.data.formats import find_sources
    from pipeline.data.store import EncodingRequest, encoded_dataset
    from pipeline.model.base_models import open_base_model

    tokenizer = open_base_model(get_target(DEFAULT_TARGET)).tokenizer
    before_mib = peak_resident_bytes() / MIB
    request = EncodingRequest(find_sources(path), tokenizer, "benchmark", 2048, None)
    started = time.perf_counter()
    dataset = encoded_dataset(request)
    reading_s = time.perf_counter() - started
    started = time.perf_counter()
    encoded_dataset(request)
    return {
        "examples": len(dataset),
        "file_mib": path.stat().st_size / MIB,
        "reading_s": reading_s,
        "examples_per_s": len(dataset) / reading_s,
        "from_cache_s": time.perf_counter() - started,
        "peak_rss_mib_before": before_mib,
        "peak_rss_mib": peak_resident_bytes() / MIB,
    }


def main() -> None:
    """Measure every size and write the result; with ``--read``, measure one file and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder of large_data.json")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read_once(options.read)))
        return
    from pipeline.model.base_models import base_model_folder

    base_model_folder(get_target(DEFAULT_TARGET))
    points = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "targets").symlink_to(cache_folder() / "targets")  # keeps the tokenised data out of the user's cache
        for count in EXAMPLE_COUNTS:
            write_pairs(folder / "made_up.jsonl", count)
            points.append(_in_a_process(folder / "made_up.jsonl", cache=folder))
            print(points[-1], flush=True)
    document = {"command": "make large-data", "provenance": collect(Path(__file__).resolve().parents[1])}
    write_text_atomically(
        options.output / "large_data.json", json.dumps({**document, "points": points}, indent=1) + "\n"
    )


def _in_a_process(path: Path, *, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.large_data", "--read", str(path)]
    environment = {**os.environ, "VERBOSITY_CACHE": str(cache)}
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
