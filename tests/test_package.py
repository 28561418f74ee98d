"""How the package is put together: imports point down and in no circle, and files stay small."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import lightning_unlearn

PACKAGE = Path(lightning_unlearn.__file__).parent
LONGEST = 400
# Each alone in a fresh interpreter: what the users import, and what the layers end in.
ENTRANCES = ("benchmark", "stages", "data.datamodule", "cli.lightning_cli")
WITHOUT_TORCH = ("report.html", "report.command", "report.writing", "cli", "cli.report_command", "config.shipped", "files")


@cache
def imports() -> dict[str, set[str]]:
    """What every module of the package imports anywhere in it when it runs, by full name."""
    files = {_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        found[name] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not _for_type_checkers(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports name the whole module path"
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= {module if module in files else str(node.module) for module in full}
    return found


def _for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle, the first one found; empty without one."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, set()) & graph.keys()):
            if circle := visit(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])


def test_a_circle_would_be_found():
    assert _circle({"a": {"b"}, "b": {"c", "x"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_imports_in_a_circle():
    assert _circle(imports()) == []


def test_functional_imports_nothing_of_ours():
    for name, others in imports().items():
        if name.startswith("lightning_unlearn.functional."):
            above = {other for other in others if other.startswith("lightning_unlearn") and ".functional" not in other}
            assert not above, name
            assert not {other for other in others if other.split(".")[0] == "lightning"}, name


@pytest.mark.parametrize(("lower", "higher"), [("data", "stages"), ("data", "cli"), ("metrics", "stages"), ("stages", "cli")])
def test_layers_import_downwards(lower, higher):
    for name, others in imports().items():
        if name.startswith(f"lightning_unlearn.{lower}"):
            assert not [other for other in others if other.startswith(f"lightning_unlearn.{higher}")], name


def test_the_report_reaches_no_torch():
    left = [name for name in imports() if name.startswith("lightning_unlearn.report")]
    seen: set[str] = set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        others = imports().get(name, set())
        heavy = {other for other in others if other.split(".")[0] in ("torch", "lightning", "torchmetrics", "timm")}
        assert not heavy, name
        left += [other for other in others if other in imports()]
    assert "lightning_unlearn.report.html" in seen


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRANCES)
def test_modules_can_be_imported_alone(name):
    subprocess.run([sys.executable, "-c", f"import lightning_unlearn.{name}"], check=True, timeout=120)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_these_import_no_torch(name):
    code = f"import sys, lightning_unlearn.{name}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_file_is_long():
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_the_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").is_file()
