"""The shape of the house: who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (
    {"errors", "threads", "__init__", "data.__init__", "doctor.__init__", "engines.__init__"},
    {"config"},
    {"environment"},
    {"gpus"},
    {"files", "figures", "data.style", "data.source"},
    {"data.formats"},
    {"data.encoding", "data.batches", "data.similarity"},
    {"data.store", "data.check"},
    {"data.report"},
    {"compat", "processes", "runs", "synthetic", "targets", "training_report"},
    {"inference", "quantization", "footprint", "tokenizer"},
    {"plan", "lean", "style_rows"},
    {"model"},
    {"trainer", "generate", "identity"},
    {"train"},
    {"scoring", "verdicts", "engines.interface", "engines.text", "engines.processors", "engines.pace"},
    {"engines.admission"},
    {"engines.serial", "engines.continuous", "engines.remote"},
    {"engines.selection"},
    {"service.__init__", "service.auth", "service.problems", "service.schemas", "service.disconnects", "service.logs"},
    {"service.bodies", "service.lifecycle", "service.openai_schemas"},
    {"service.metrics"},
    {"service.answering"},
    {"service.routes", "service.streaming"},
    {f"service.{name}" for name in ("native", "openai", "health", "page", "openapi")},
    {"service.app"},
    {"service.server", "service.loading"},
    {"export"},
    {"demo", "doctor.findings"},
    {"doctor.packages", "doctor.machine", "doctor.gpu", "doctor.models"},
    {"doctor.arithmetic"},
    {"doctor.examine"},
    {"commands.__init__"},
    {
        f"commands.{name}"
        for name in ("plan", "train", "data", "generate", "serve", "export", "verify", "demo", "doctor")
    },
    {"cli"},
)
"""Modules of the pipeline from the ground up; each imports only from its own layer or lower ones."""


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def module_name(path: Path) -> str:
    """Dotted name below the package."""
    return ".".join(path.relative_to(ROOT / "pipeline").with_suffix("").parts)


PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
HARNESS = sorted((ROOT / "harness").rglob("*.py"))


def test_harness_and_pipeline_do_not_know_each_other() -> None:
    assert all("harness" not in packages(path) for path in PIPELINE)
    assert all("pipeline" not in packages(path) for path in HARNESS)


def test_every_module_of_the_pipeline_has_a_layer() -> None:
    assert set.union(*LAYERS) == {module_name(path) for path in PIPELINE}


@pytest.mark.parametrize("path", PIPELINE, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    importer = module_name(path)
    for name in imports(path):
        if (module := name.removeprefix("pipeline.")) in rank:
            assert rank[module] <= rank[importer], f"{importer} imports {module}"


def test_heavy_or_narrow_packages_have_one_room() -> None:
    for narrow in ("flask", "werkzeug", "waitress", "pydantic", "prometheus_client"):
        assert {path.parent.name for path in PIPELINE if narrow in packages(path)} == {"service"}
    knows_pytest = [path.relative_to(ROOT / "harness").as_posix() for path in HARNESS if "pytest" in packages(path)]
    assert knows_pytest == ["golden/plugin.py", "plugin.py"]
    assert [path.stem for path in PIPELINE if "pyarrow" in packages(path)] == ["store"]
    for path in HARNESS:
        assert not packages(path) & {"torch", "transformers", "peft"}


@pytest.mark.parametrize("path", [*PIPELINE, *HARNESS], ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_importing_the_command_line_loads_no_torch() -> None:
    heavy = ("torch", "transformers", "flask")
    script = f"import sys, pipeline.cli, pipeline.doctor.examine; print([m for m in {heavy} if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert finished.stdout.strip() == "[]"


def test_importing_the_server_loads_no_torch() -> None:
    """It listens before the model is there."""
    script = "import sys, pipeline.service.server; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert finished.stdout.strip() == "False"


def test_remote_code_and_pickled_weights_are_never_allowed() -> None:
    for path in PIPELINE:
        text = path.read_text(encoding="utf-8")
        assert "trust_remote_code=True" not in text
        assert "torch.load" not in text
