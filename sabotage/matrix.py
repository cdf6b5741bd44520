"""``make sabotage``: every fault and twenty healthy runs through the complete gate, as a table of criterion by fault.

Trials that finished in the work folder are not run again, so a killed run can be resumed. Trials in the committed
matrix stay until they are run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.run_folder import RunFolder
from sabotage.faults import FAULTS, Fault
from sabotage.picture import summarise, write_matrix

ROOT = Path(__file__).resolve().parents[1]
HEALTHY_SEEDS = tuple(range(1000, 1020))
"""Training seeds of the healthy repeats; fixed before the first of them was run."""
RESULT = "acceptance.json"


@dataclass(frozen=True)
class Workshop:
    """Where trials run.

    Attributes:
        work: Folder of runs, logs and results.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads of one trial.
    """

    work: Path
    device: str
    threads: int

    def command(self, log: Path, *arguments: str) -> int:
        """Run a Python module in a process of its own, its output in a log file; returns the exit status."""
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", *arguments]
        with log.open("ab") as stream:
            finished = subprocess.run(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream, check=False)
        return finished.returncode

    def train(self, folder: Path, target: str, *options: str) -> RunFolder:
        """A healthy run, trained unless it exists.

        Raises:
            RuntimeError: Training failed.
        """
        run = RunFolder(folder / "run")
        if not run.record_file.exists() or run.read_record()["status"] != "completed":
            train = ("pipeline.cli", "train", "--target", target, "--preset", "lean", "--device", self.device)
            if self.command(folder / "train.log", *train, "--output", str(run.path), *options):
                raise RuntimeError(f"a healthy run failed: see {folder / 'train.log'}")
        return run

    def accept(self, folder: Path, target: str, *options: str) -> dict[str, Any]:
        """The acceptance's result document, produced unless it exists.

        Raises:
            RuntimeError: The gate left no document.
        """
        result = folder / RESULT
        if not result.exists():
            marks = f"{'gpu' if self.device == 'cuda' else 'embedded'} and not snapshot"
            gate = ("pytest", "acceptance", "-q", "-p", "no:cacheprovider", "-m", marks, "--preset", "lean")
            where = ("--target", target, "--device", self.device, f"--acceptance-dir={folder}")
            self.command(folder / "gate.log", *gate, *where, *options)
        if not result.exists():
            raise RuntimeError(f"the gate left no result: see {folder / 'gate.log'}")
        document: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return document

    def healthy(self, seed: int) -> dict[str, Any]:
        """One healthy run: trained with its own seed, served and judged."""
        folder = self.work / f"healthy-{seed}"
        if not (folder / RESULT).exists():
            self.train(folder, "smollm2-135m", "--seed", str(seed))
        return {"seed": seed, **_outcomes(self.accept(folder, "smollm2-135m", f"--run-dir={folder / 'run'}"))}

    def broken(self, fault: Fault) -> dict[str, Any]:
        """One fault, judged by the gate."""
        folder = self.work / fault.name
        options = ["-p", "sabotage.plugin", "--fault", fault.name, f"--basetemp={folder / 'tmp'}"]
        if not fault.trains:
            run = RunFolder(folder / "run")
            if not (folder / RESULT).exists():
                shutil.rmtree(run.path, ignore_errors=True)
                shutil.copytree(self.work / fault.target / "run", run.path)
                if fault.damage:
                    fault.damage(run)
            options.append(f"--run-dir={run.path}")
        return judged(fault, _outcomes(self.accept(folder, fault.target, *options)))


def judged(fault: Fault, found: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's outcomes, judged by what its fault declares today."""
    failed = {id_ for id_, outcome in found["outcomes"].items() if outcome == "FAIL"}
    return {
        **found,
        "name": fault.name,
        "what": fault.what,
        "target": fault.target,
        "catches": list(fault.catches),
        "may_follow": [id_ for id_ in fault.may_follow if id_ not in fault.catches],
        "caught": found["decision"] == "REJECTED" and failed >= set(fault.catches),
        "unexpected": sorted(failed - {*fault.catches, *fault.may_follow}),
    }


def judged_bounds(documents: Iterable[Path], older: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The limit of each criterion's measures in result documents; a target's own counts as the documented one.

    Args:
        documents: Result documents of trials.
        older: The limits of the trials that are already in the matrix.

    Raises:
        RuntimeError: Two trials were judged by different limits.
    """
    limits = {id_: dict(measures) for id_, measures in older.items()}
    for path in documents:
        (subject,) = json.loads(path.read_text(encoding="utf-8"))["subjects"]
        for criterion in subject["criteria"]:
            known = limits.setdefault(criterion["id"], {})
            for bound in criterion["bounds"]:  # without learned weights some are left out
                limit = bound["documented_limit"] or bound["limit"]
                if known.setdefault(bound["measure"], limit) != limit:
                    raise RuntimeError(
                        f"{path}: other bounds of {criterion['id']}; delete the older trial, here or in the matrix"
                    )
    return limits


def with_older(
    older: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], repeats: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The new trials and those of an older matrix that were not run again, in the order of faults and of seeds."""
    trials = {trial["name"]: trial for trial in [*older.get("faults", ()), *faults]}
    runs = {run["seed"]: run for run in [*older.get("healthy", ()), *repeats]}
    return (
        [judged(fault, trials[name]) for name, fault in FAULTS.items() if name in trials],
        [runs[seed] for seed in HEALTHY_SEEDS if seed in runs],
    )


def _outcomes(document: dict[str, Any]) -> dict[str, Any]:
    (subject,) = document["subjects"]
    origin = document["provenance"]
    return {
        "decision": document["decision"],
        "outcomes": {criterion["id"]: criterion["outcome"] for criterion in subject["criteria"]},
        "machine": origin["gpu"] or origin["cpu_model"],
        "git_commit": origin["git_commit"],
        "git_dirty": origin["git_dirty"],
        "packages": origin["packages"],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Prove that the gate can fail, and that it lets healthy runs pass.")
    parser.add_argument("--work", type=Path, default=Path("sabotage-runs"), help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results/sabotage"), help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="trials at once (default: %(default)s)")
    parser.add_argument("--fault", action="append", choices=tuple(FAULTS), help="only this one; may be repeated")
    parser.add_argument(
        "--healthy", type=int, default=len(HEALTHY_SEEDS), help="healthy repeats (default: %(default)s)"
    )
    parser.add_argument("--finished", action="store_true", help="run nothing, add what is finished to the matrix")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for and write the matrix; exit status 1 unless the gate was right every time."""
    options = _options()
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    workshop = Workshop(options.work.resolve(), options.device, threads)
    chosen = [FAULTS[name] for name in options.fault or FAULTS]
    seeds = HEALTHY_SEEDS[: options.healthy]
    if options.finished:
        chosen = [fault for fault in chosen if (workshop.work / fault.name / RESULT).exists()]
        seeds = tuple(seed for seed in seeds if (workshop.work / f"healthy-{seed}" / RESULT).exists())
    with ThreadPoolExecutor(options.jobs) as pool:
        targets = {} if options.finished else dict.fromkeys(fault.target for fault in chosen if not fault.trains)
        list(pool.map(lambda target: workshop.train(workshop.work / target, target), targets))
        broken = pool.map(workshop.broken, chosen)
        healthy = pool.map(workshop.healthy, seeds)
        faults = list(tqdm(broken, desc="faults", total=len(chosen), unit="fault"))
        repeats = list(tqdm(healthy, desc="healthy repeats", total=len(seeds), unit="run"))
    written = options.output / "matrix.json"
    older = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    trials = [*(fault["name"] for fault in faults), *(f"healthy-{run['seed']}" for run in repeats)]
    bounds = judged_bounds((workshop.work / name / RESULT for name in trials), older.get("bounds", {}))
    return write_matrix(summarise(*with_older(older, faults, repeats), bounds), options.output)


if __name__ == "__main__":
    sys.exit(main())
