"""The gate on the tiny target in a process of its own: trained, served, measured, decided."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pipeline.config import DEFAULT_BASE_MODEL
from pipeline.run_folder import RunFolder
from sabotage.damage import truncate
from tests.smoke.gate import acceptance, results

RESOURCE_CRITERIA = {
    "training.loads_in_4bit",
    "training.gpu_memory",
    "training.completes",
    "training.duration",
    "training.adapter_saves",
    "style.generation_speed",
    "deployment.server_starts",
    "deployment.health_endpoint",
    "deployment.generate_endpoint",
    "deployment.error_handling",
    "deployment.under_load",
}
QUALITY_CRITERIA = {
    "training.loss_converges",
    "style.token_separation",
    "style.consistency",
    "style.no_repetition",
    "style.coherence",
    "deployment.served_answers",
}


QUICK_FILES = ("test_training.py", "test_server.py", "test_deployment.py")
"""Without style and load, for which a model that never ends its answers computes half a minute."""
JUDGED_QUICKLY = RESOURCE_CRITERIA - {"training.duration", "style.generation_speed", "deployment.under_load"}
"""Speed is left to the complete run, too: that of sixteen examples is the machine's load."""


@pytest.fixture(scope="module")
def tiny_acceptance(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("acceptance")
    junit = f"--junitxml={folder / 'junit.xml'}"
    marks = ["-m", "embedded and not snapshot", "--target", "tiny-mistral"]
    return folder, acceptance(*marks, "--acceptance-dir", str(folder), junit)


def test_a_finished_run_is_judged(tiny_run: RunFolder, tmp_path: Path) -> None:
    marks = ["-m", "embedded and not snapshot", "--target", "tiny-mistral", f"--run-dir={tiny_run.path}"]
    status = acceptance(*marks, "--acceptance-dir", str(tmp_path), tests=QUICK_FILES)
    outcomes = {name: result["outcome"] for name, result in results(tmp_path, "tiny-mistral").items()}
    assert {name: outcomes[name] for name in JUDGED_QUICKLY} == dict.fromkeys(JUDGED_QUICKLY, "PASS")
    assert status == 11


@pytest.mark.slow
@pytest.mark.versions
def test_every_resource_criterion_passes_on_random_weights(tiny_acceptance: tuple[Path, int]) -> None:
    outcomes = {name: result["outcome"] for name, result in results(tiny_acceptance[0], "tiny-mistral").items()}
    assert {name: outcomes[name] for name in RESOURCE_CRITERIA} == dict.fromkeys(RESOURCE_CRITERIA, "PASS")


@pytest.mark.slow
def test_random_weights_are_never_accepted(tiny_acceptance: tuple[Path, int]) -> None:
    folder, status = tiny_acceptance
    outcomes = {name: result["outcome"] for name, result in results(folder, "tiny-mistral").items()}
    assert {outcomes[name] for name in QUALITY_CRITERIA} == {"NOT_APPLICABLE"}
    assert status == 11
    assert json.loads((folder / "acceptance.json").read_text())["decision"] == "INCOMPLETE"


@pytest.mark.slow
def test_the_evidence_is_left_behind(tiny_acceptance: tuple[Path, int]) -> None:
    folder, _ = tiny_acceptance
    assert "training.gpu_memory" in (folder / "report.html").read_text()
    properties = {p.get("name") for p in ElementTree.parse(folder / "junit.xml").iter("property")}
    assert "measured.peak_memory_gib" in properties


@pytest.mark.slow
def test_the_report_says_what_the_doctor_found_and_names_no_folder(tiny_acceptance: tuple[Path, int]) -> None:
    folder, _ = tiny_acceptance
    doctor = json.loads((folder / "acceptance.json").read_text())["provenance"]["doctor"]
    findings = {finding["check"]: finding for finding in doctor["findings"]}
    assert findings["bitsandbytes.cpu"]["level"] == "OK"
    assert "mistral-7b-v0.3" in findings["model.mistral-7b-v0.3"]["detail"]
    assert DEFAULT_BASE_MODEL not in json.dumps(doctor)
    assert doctor["summary"] in (folder / "report.md").read_text().replace("\\", "")
    assert "bitsandbytes.cpu" in re.sub("<[^>]*>", "", (folder / "report.html").read_text())


@pytest.mark.slow
def test_a_damaged_adapter_is_rejected(tiny_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    truncate(RunFolder(tmp_path / "run"))
    folder = tmp_path / "results"
    marks = ["-m", "embedded and not snapshot", "--target", "tiny-mistral", f"--run-dir={tmp_path / 'run'}"]
    status = acceptance(*marks, "--acceptance-dir", str(folder), tests=("test_training.py",))
    found = results(folder, "tiny-mistral")
    assert status == 10
    assert found["training.adapter_saves"]["outcome"] == "FAIL"
    assert "digest_matches" in found["training.adapter_saves"]["reason"]
    assert found["training.loads_in_4bit"]["outcome"] == "NOT_RUN"  # such a model is not even loaded
    assert found["deployment.server_starts"]["outcome"] == "NOT_RUN"


@pytest.mark.slow
def test_without_a_gpu_the_golden_path_is_incomplete_and_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert acceptance("-m", "gpu", "--acceptance-dir", str(tmp_path)) == 11
    found = results(tmp_path, "mistral-7b-v0.3")
    assert len(found) == 17
    assert {result["outcome"] for result in found.values()} == {"NOT_RUN"}
    assert "no CUDA device" in found["training.completes"]["reason"]
