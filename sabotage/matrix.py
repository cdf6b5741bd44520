"""``make sabotage``: every fault and twenty healthy runs through the complete gate, as a table of criterion by fault.

Trials that finished in the work folder are not run again, so a killed run can be resumed, unless a criterion is younger
than they are. Trials in the committed matrix stay until they are run again; those that a younger criterion could change
are named, and ``--stale`` runs them.
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
from sabotage.criteria import BOUNDS, as_judged, younger
from sabotage.fault import Fault
from sabotage.faults import FAULTS
from sabotage.picture import name_of, summarise, write_matrix

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
        """The acceptance's result document, produced unless it exists and is of all criteria in force.

        Raises:
            RuntimeError: The gate left no document.
        """
        result = folder / RESULT
        if not self.is_current(folder, target):
            marks = f"{'gpu' if self.device == 'cuda' else 'embedded'} and not snapshot"
            gate = ("pytest", "acceptance", "-q", "-p", "no:cacheprovider", "-m", marks, "--preset", "lean")
            # The full sample, so that each criterion judges the fault.
            where = ("--full-sample", "--target", target, "--device", self.device, f"--acceptance-dir={folder}")
            result.unlink(missing_ok=True)
            self.command(folder / "gate.log", *gate, *where, *options)
        if not result.exists():
            raise RuntimeError(f"the gate left no result: see {folder / 'gate.log'}")
        document: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return document

    def is_current(self, folder: Path, target: str) -> bool:
        """Whether a trial is finished, and no criterion is younger."""
        result = folder / RESULT
        if not result.exists():
            return False
        return not younger({"target": target, **_outcomes(json.loads(result.read_text(encoding="utf-8")))})

    def healthy(self, seed: int) -> dict[str, Any]:
        """One healthy run: trained with its own seed, served and judged."""
        folder = self.work / f"healthy-{seed}"
        if not self.is_current(folder, "smollm2-135m"):
            self.train(folder, "smollm2-135m", "--seed", str(seed))
        return {"seed": seed, **_outcomes(self.accept(folder, "smollm2-135m", f"--run-dir={folder / 'run'}"))}

    def broken(self, fault: Fault) -> dict[str, Any]:
        """One fault, judged by the gate."""
        folder = self.work / fault.name
        options = ["-p", "sabotage.plugin", "--fault", fault.name, f"--basetemp={folder / 'tmp'}"]
        if not fault.trains:
            run = RunFolder(folder / "run")
            if not self.is_current(folder, fault.target):
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
        "seen": fault.seen,
        "blind_spot": fault.blind_spot,
        "target": fault.target,
        "catches": list(fault.catches),
        "may_follow": [id_ for id_ in fault.may_follow if id_ not in fault.catches],
        "caught": found["decision"] == "REJECTED" and failed >= set(fault.catches),
        "unexpected": sorted(failed - {*fault.catches, *fault.may_follow}),
    }


def require_bounds_in_force(documents: Iterable[Path]) -> None:
    """Refuse results that were judged by other bounds than those in force.

    Raises:
        RuntimeError: A trial was judged by other limits.
    """
    for path in documents:
        (subject,) = json.loads(path.read_text(encoding="utf-8"))["subjects"]
        for criterion in subject["criteria"]:
            for bound in criterion["bounds"]:  # without learned weights some are left out
                limit = bound["documented_limit"] or bound["limit"]
                if BOUNDS.get(criterion["id"], {}).get(bound["measure"]) != limit:
                    raise RuntimeError(
                        f"{path}: other bounds of {criterion['id']} than those in force; delete the trial"
                    )


def with_older(
    older: Mapping[str, Any], faults: Sequence[Mapping[str, Any]], repeats: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The new trials and those of an older matrix that were not run again, in the order of faults and of seeds.

    Of the older ones, outcomes by other bounds than those in force are left out.
    """
    before = {kind: [as_judged(of, older["bounds"]) for of in older.get(kind, ())] for kind in ("faults", "healthy")}
    trials = {trial["name"]: trial for trial in [*before["faults"], *faults]}
    runs = {run["seed"]: run for run in [*before["healthy"], *repeats]}
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--finished", action="store_true", help="run nothing, add what is finished to the matrix")
    which.add_argument(
        "--stale",
        action="store_true",
        help="only what was never run, or is older than a criterion that could change it",
    )
    return parser.parse_args()


def main() -> int:
    """Run what was asked for and write the matrix; exit status 1 unless the gate was right every time."""
    options = _options()
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    workshop = Workshop(options.work.resolve(), options.device, threads)
    chosen = [FAULTS[name] for name in options.fault or FAULTS]
    seeds = HEALTHY_SEEDS[: options.healthy]
    written = options.output / "matrix.json"
    older = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    if options.finished:
        chosen = [fault for fault in chosen if (workshop.work / fault.name / RESULT).exists()]
        seeds = tuple(seed for seed in seeds if (workshop.work / f"healthy-{seed}" / RESULT).exists())
    if options.stale:
        present = with_older(older, (), ())
        current = {name_of(trial) for trials in present for trial in trials if not younger(trial)}
        chosen = [fault for fault in chosen if fault.name not in current]
        seeds = tuple(seed for seed in seeds if f"healthy-{seed}" not in current)
    with ThreadPoolExecutor(options.jobs) as pool:
        targets = {} if options.finished else dict.fromkeys(fault.target for fault in chosen if not fault.trains)
        list(pool.map(lambda target: workshop.train(workshop.work / target, target), targets))
        broken = pool.map(workshop.broken, chosen)
        healthy = pool.map(workshop.healthy, seeds)
        faults = list(tqdm(broken, desc="faults", total=len(chosen), unit="fault"))
        repeats = list(tqdm(healthy, desc="healthy repeats", total=len(seeds), unit="run"))
    require_bounds_in_force(workshop.work / name_of(trial) / RESULT for trial in [*faults, *repeats])
    return write_matrix(summarise(*with_older(older, faults, repeats)), options.output)


if __name__ == "__main__":
    sys.exit(main())
