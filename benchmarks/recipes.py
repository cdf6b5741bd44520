"""Recipes of the embedded target that cost the same: answers out of bound and answers that loop, by recipe and seed.

``run RECIPE SEED DEVICE DIR`` trains into DIR and greedily answers the prompts of the shipped data that no recipe is
trained on, none of which the acceptance asks. ``report DIR...`` combines such runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tabulate import tabulate

from harness.files import write_text_atomically
from harness.provenance import collect
from pipeline.commands import DEFAULT_TARGET
from pipeline.config import Style, get_target, resolve_preset
from pipeline.environment import apply_environment
from pipeline.files import TRAINING_DATA, write_json
from pipeline.run_folder import RunFolder

apply_environment()  # before torch is imported

ROOT = Path(__file__).resolve().parents[1]
RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "two passes": {"max_examples": 640, "epochs": 2, "learning_rate": 1e-3},
        "two passes, twice the rate": {"max_examples": 640, "epochs": 2, "learning_rate": 2e-3},
        "three passes": {"max_examples": 426, "epochs": 3, "learning_rate": 1e-3},
        "three passes, twice the rate": {"max_examples": 426, "epochs": 3, "learning_rate": 2e-3},
        "four passes, twice the rate": {"max_examples": 320, "epochs": 4, "learning_rate": 2e-3},
    }
)
"""What replaces fields of lean's training; each passes over 1,278 or 1,280 examples."""
FIRST_UNSEEN = 640
RESULT = "recipe.json"


def train_and_ask(recipe: str, seed: int, device: str, folder: Path) -> dict[str, Any]:
    """Train one recipe with one seed and count its bad answers."""
    from acceptance.asking import ask
    from acceptance.early import in_bound
    from acceptance.measures import kept_greedy
    from acceptance.test_coherence import LEAST_DISTINCT_2
    from harness.metrics import distinct_n
    from pipeline.data.formats import read_examples
    from pipeline.engines.many import Asked
    from pipeline.model.loading import load_trained
    from pipeline.training.train import TrainingRequest, train

    target = get_target(DEFAULT_TARGET)
    preset = resolve_preset("lean", target, seed=seed, **RECIPES[recipe])
    record = train(TrainingRequest(target, preset, TRAINING_DATA, folder, device))
    unseen = list(read_examples(TRAINING_DATA))[FIRST_UNSEEN:]
    asked = [Asked(example.words, example.style) for example in unseen]
    answers = kept_greedy(zip((one.prompt for one in asked), ask(load_trained(RunFolder(folder)), asked), strict=True))
    bad = {
        style.value: sum(not in_bound(answer) for answer in answers if answer["style"] == style.value)
        for style in Style
    }
    return {
        "recipe": recipe,
        "seed": seed,
        "examples_per_s": record["examples_per_s"],
        "prompt_counts": {style.value: sum(one.style is style for one in asked) for style in Style},
        "out_of_bound_counts": bad,
        "unvaried_count": sum(distinct_n(answer["token_ids"], 2) < LEAST_DISTINCT_2 for answer in answers),
        "provenance": collect(ROOT),
    }


def choose(runs: Sequence[Mapping[str, Any]]) -> str:
    """The recipe whose worst share is the lowest: TERSE or VERBOSE out of bound, or loops; all seeds together."""
    recipes: set[str] = {run["recipe"] for run in runs}
    return min(recipes, key=lambda name: max(_shares(_of(runs, name))))


def _of(runs: Sequence[Mapping[str, Any]], recipe: str) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["recipe"] == recipe]


def _counts(runs: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Bad answers and all: TERSE and VERBOSE out of bound, then loops."""
    asked = {style: sum(run["prompt_counts"][style.value] for run in runs) for style in Style}
    out = {style: sum(run["out_of_bound_counts"][style.value] for run in runs) for style in Style}
    loops = sum(run["unvaried_count"] for run in runs)
    return [*((out[style], asked[style]) for style in Style), (loops, sum(asked.values()))]


def _shares(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [count / of for count, of in _counts(runs)]


def to_markdown(document: Mapping[str, Any]) -> str:
    """One row for each recipe, the counts of its seeds together."""
    rows = [_row(name, of) for name in RECIPES if (of := _of(document["runs"], name))]
    headers = ("recipe", "examples, passes, rate", "seeds", *(f"{style.name} out of bound" for style in Style), "loops")
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return "\n\n".join(filter(None, (table, document.get("remark"))))


def _row(name: str, runs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    recipe, seeds = RECIPES[name], ", ".join(str(run["seed"]) for run in runs)
    settings = f"{recipe['max_examples']}, {recipe['epochs']}, {recipe['learning_rate']:g}"
    shares = (f"{count} of {of:,} ({count / of:.1%})" for count, of in _counts(runs))
    return name, settings, seeds, *shares


def report(folders: Sequence[Path], output: Path) -> None:
    """Combine the results of several runs.

    Raises:
        ValueError: They are of several commits.
    """
    runs = [json.loads((folder / RESULT).read_text(encoding="utf-8")) for folder in folders]
    runs.sort(key=lambda run: (list(RECIPES).index(run["recipe"]), run["seed"]))
    if len({run["provenance"]["git_commit"] for run in runs}) != 1:
        raise ValueError("the runs are of several commits; name runs of one")
    provenance, *_ = [run.pop("provenance") for run in runs]
    document = {"command": "python -m benchmarks.recipes", "provenance": provenance, "runs": runs}
    write_text_atomically(output / "recipes.json", json.dumps(document, indent=1) + "\n")


def main() -> None:
    """Run one recipe, or report on several runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train one recipe with one seed and ask it")
    one.add_argument("recipe", choices=tuple(RECIPES))
    one.add_argument("seed", type=int)
    one.add_argument("device", choices=("cpu", "cuda"))
    one.add_argument("folder", type=Path)
    several = commands.add_parser("report", help="combine the results of several runs")
    several.add_argument("folders", type=Path, nargs="+")
    several.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "report":
        report(given.folders, given.output)
        return
    result = train_and_ask(given.recipe, given.seed, given.device, given.folder)
    write_json(given.folder / RESULT, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
