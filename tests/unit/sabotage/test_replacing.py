"""What a fault replaces is in use: a name that moved would leave the fault without effect."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sabotage.replacing import replace

ROOT = Path(__file__).resolve().parents[3]


def parsed(folder: str) -> dict[str, ast.Module]:
    files = sorted((ROOT / folder).rglob("*.py"))
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): ast.parse(file.read_text(encoding="utf-8"))
        for file in files
    }


USERS, SABOTAGE = parsed("pipeline") | parsed("acceptance"), parsed("sabotage")
PLACES = sorted(
    {
        node.value
        for tree in SABOTAGE.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"pipeline[\w.]*:\w+", node.value)
    }
)


def defines(tree: ast.Module, name: str) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in tree.body)


def imports(tree: ast.Module, name: str, module: str = "") -> bool:
    return any(
        isinstance(node, ast.ImportFrom) and module in ("", node.module) and name in [each.name for each in node.names]
        for node in ast.walk(tree)
    )


def uses(tree: ast.Module, name: str) -> bool:
    """Whether a module reads a name, other than to annotate with it."""
    annotations = {id(node) for root in _annotations(tree) for node in ast.walk(root)}
    return any(
        isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
        and id(node) not in annotations
        for node in ast.walk(tree)
    )


def _annotations(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        yield from filter(None, (getattr(node, "annotation", None), getattr(node, "returns", None)))


@pytest.mark.parametrize("place", PLACES)
def test_what_a_fault_replaces_is_in_use(place: str) -> None:
    module, _, name = place.partition(":")
    tree = USERS[module]
    if defines(tree, name):
        importers = [other for other in USERS.values() if imports(other, name, module)]
        assert any(uses(each, name) for each in (tree, *importers)), f"nothing uses {place}"
    else:
        assert imports(tree, name), f"{module} has no {name}"
        assert uses(tree, name), f"{module} does not use {name}"


def test_every_replacement_names_its_place_in_full() -> None:
    assert len(PLACES) >= 20
    for tree in SABOTAGE.values():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.JoinedStr) and ast.unparse(node).startswith("f'pipeline."))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """A module that defines ``answer``, and one that has imported it by name already."""
    first, second = ModuleType("pipeline.first"), ModuleType("pipeline.second")
    exec("def answer(): return 'healthy'", vars(first))
    vars(second).update(answer=vars(first)["answer"])
    for module in (first, second):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return first, second


def test_a_function_is_replaced_wherever_it_is_known_by_name(modules: tuple[ModuleType, ModuleType]) -> None:
    replace("pipeline.first:answer", lambda answer: lambda: "broken")
    assert [vars(module)["answer"]() for module in modules] == ["broken", "broken"]


def test_a_module_that_only_imported_a_function_is_changed_alone(modules: tuple[ModuleType, ModuleType]) -> None:
    replace("pipeline.second:answer", lambda answer: lambda: "broken")
    assert [vars(module)["answer"]() for module in modules] == ["healthy", "broken"]


def test_a_name_that_is_gone_is_an_error(modules: tuple[ModuleType, ModuleType]) -> None:
    with pytest.raises(AttributeError, match="reply"):
        replace("pipeline.first:reply", lambda reply: reply)
