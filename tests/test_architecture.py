"""The shape of the package: which way imports run, what may import what, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pytest_lmstrix"
MOST_LINES = 350

# From the bottom to the top: a layer imports itself and those before it. `manifest` stands for
# `manifest_schema` too, and `engines` for all in that folder; what is not named may be anywhere
# that makes no circle.
LAYERS = (
    ("text", "patterns"),
    ("verdicts", "types"),
    ("answers", "questions", "probes", "manifest", "sources", "downloads", "weights", "registry",
     "leases", "processes", "engines"),
    ("plan",),
    ("options", "hookspecs", "collection", "fixtures", "checks", "loader", "judging", "outcomes"),
    ("scheduling", "reporting"),
    ("session", "plugin"),
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

PYTEST = {"pytest", "_pytest", "pluggy", "xdist", "pytest_html"}
ENGINES = {"lmstudio", "xllamacpp", "gguf"}
HEAVY = {"msgspec", "filelock", "yaml", "lmstudio", "httpx", "rich", "psutil", "huggingface_hub"}


def module_of(path: Path) -> str:
    """Without the package: `engines.base`; `engines` for its `__init__`, "" for the topmost."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def rank_of(module: str) -> int | None:
    top = module.partition(".")[0]
    return RANK.get(top, RANK.get(top.partition("_")[0]))


def import_statements(node: ast.AST, *, for_types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """At any depth; those under `if TYPE_CHECKING:` only if `for_types`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif for_types or not (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        ):
            yield from import_statements(child, for_types=for_types)


@cache
def imported(module: str, *, for_types: bool = True) -> frozenset[str]:
    """Dotted names that `module` imports, its own package's with a leading dot."""
    found = set()
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for statement in import_statements(tree, for_types=for_types):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            assert not statement.level, f"{module}: write imports in full"
            base = statement.module or ""
            names = [f"{base}.{alias.name}" for alias in statement.names]
        for name in names:
            top, _, own = name.partition(".")
            if top != PACKAGE.name:
                found.add(name)
            elif own in FILES:
                found.add(f".{own}")
            elif own.rpartition(".")[0]:  # a name in a module
                found.add(f".{own.rpartition('.')[0]}")
    return frozenset(found)


def own_imports(module: str, *, for_types: bool = True) -> set[str]:
    names = imported(module, for_types=for_types)
    return {name[1:] for name in names if name.startswith(".")}


def foreign_imports(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imported(module) if not name.startswith(".")}


def reached(module: str) -> set[str]:
    """Modules of the package that `module` imports, and what these import, and so on."""
    seen: set[str] = set()
    todo = {module}
    while todo:
        seen |= todo
        todo = {each for one in todo for each in own_imports(one)} - seen
    return seen


@pytest.mark.parametrize("module", [name for name in FILES if rank_of(name) is not None])
def test_imports_run_one_way(module: str) -> None:
    mine = rank_of(module)
    assert mine is not None
    above = {name for name in reached(module) if (rank_of(name) or 0) > mine}
    assert not above, f"{module} must not know of {sorted(above)}"


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: own_imports(name, for_types=False) for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    "module", [name for name in FILES if rank_of(name) in range(RANK["plan"] + 1)]
)
def test_files_up_to_plan_know_nothing_of_pytest(module: str) -> None:
    for name in reached(module):
        assert not foreign_imports(name) & PYTEST, f"{module} gets there by {name}"


@pytest.mark.parametrize("module", [name for name in FILES if name.partition(".")[0] != "engines"])
def test_only_engines_import_engines(module: str) -> None:
    assert not foreign_imports(module) & ENGINES


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=name or ".") for name, path in FILES.items()]
)
def test_files_are_short_and_named_for_what_they_hold(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert path.stem not in ("utils", "helpers", "manager", "misc", "common")


def test_having_the_plugin_installed_costs_nothing() -> None:
    program = "import pytest_lmstrix.plugin, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "pytest_lmstrix.plugin" in loaded
    assert not HEAVY & set(loaded)
