"""Every file in golden/ belongs to a test."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from harness.snapshots.extension import KEYS, path_part
from pipeline.config import TARGETS

ROOT = Path(__file__).resolve().parents[2]


def strays(root: Path) -> dict[str, str]:
    """Files of `root`/golden that belong to no test, with the reason."""
    folder = root / "golden"
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    reasons = {path.as_posix(): _complaint(root, path) for path in files if path != Path("README.md")}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _complaint(root: Path, path: Path) -> str | None:
    if len(path.parts) != 4 or path.suffix != ".json" or path.parts[0] not in TARGETS:
        return "not <target>/<environment>/<test module>/<test name>.json"
    module = root / "acceptance" / f"{path.parts[2]}.py"
    if not module.is_file():
        return f"there is no acceptance/{module.name}"
    document: Any = json.loads((root / "golden" / path).read_text(encoding="utf-8"))
    if document.keys() != KEYS:
        return f"it holds {', '.join(sorted(document))}; tolerances belong to the test: record it again"
    origin = document["provenance"]
    owner, _, test = origin["test"].partition("::")
    function = test.partition("[")[0]
    if owner != path.parts[2] or path_part(test) != path.stem:
        return f"its provenance names {origin['test']}"
    if function not in _test_functions(module):
        return f"acceptance/{module.name} has no {function}"
    if f"[{path.parts[0]}]" != test.removeprefix(function):
        return f"it was recorded with {test}, not with {path.parts[0]}"
    return None if origin["git_dirty"] is False else "it was recorded from uncommitted code"


def _test_functions(module: Path) -> set[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_snapshot_belongs_to_a_test() -> None:
    assert strays(ROOT) == {}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one snapshot that belongs to its test."""
    module = tmp_path / "acceptance" / "test_snapshots.py"
    module.parent.mkdir(parents=True)
    module.write_text("def test_a(device_snapshot, target): ...\n")
    write(tmp_path, "smollm2-135m/cpu/test_snapshots/test_a_smollm2-135m.json", "test_snapshots::test_a[smollm2-135m]")
    assert strays(tmp_path) == {}
    return tmp_path


def write(root: Path, name: str, test: str, dirty: bool = False, **others: object) -> None:
    path = root / "golden" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"value": 1, "provenance": {"test": test, "git_dirty": dirty}, **others}
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "test", "reason"),
    [
        ("smollm2-135m/cpu/test_gone/test_a_smollm2-135m.json", "test_gone::test_a[smollm2-135m]", "no acceptance/"),
        (
            "smollm2-135m/cpu/test_snapshots/test_b_smollm2-135m.json",
            "test_snapshots::test_b[smollm2-135m]",
            "no test_b",
        ),
        ("smollm2-135m/gpu/test_snapshots/test_a_smollm2-135m.json", "test_other::test_a[smollm2-135m]", "names"),
        ("smollm2-135m/gpu/test_snapshots/test_c_smollm2-135m.json", "test_snapshots::test_a[smollm2-135m]", "names"),
        (
            "tiny-mistral/cpu/test_snapshots/test_a_smollm2-135m.json",
            "test_snapshots::test_a[smollm2-135m]",
            "recorded with",
        ),
        ("unknown/cpu/test_snapshots/test_a_unknown.json", "test_snapshots::test_a[unknown]", "not <target>"),
        ("smollm2-135m/cpu/test_snapshots/more/test_a.json", "test_snapshots::test_a", "not <target>"),
        ("smollm2-135m/curve/curve.json", "", "not <target>"),
        ("notes.md", "", "not <target>"),
    ],
)
def test_a_stray_file_is_named(project: Path, name: str, test: str, reason: str) -> None:
    write(project, name, test)
    found = strays(project)
    assert list(found) == [name]
    assert reason in found[name]


def test_a_snapshot_holds_no_tolerance_and_names_a_commit(project: Path) -> None:
    name, test = "smollm2-135m/gpu/test_snapshots/test_a_smollm2-135m.json", "test_snapshots::test_a[smollm2-135m]"
    write(project, name, test, tolerance=1)
    assert "tolerances belong to the test" in strays(project)[name]
    write(project, name, test, dirty=True)
    assert "uncommitted" in strays(project)[name]
