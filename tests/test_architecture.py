"""The shape of the package: one-way imports by folder, small folders, short files, unique names."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "pytest_lmstrix"
MOST_LINES = 350
MOST_FILES = 10
"""In a folder, besides `__init__.py`."""

# From the bottom to the top: a folder (or a file at the top) imports itself and the folders
# of lower layers.
LAYERS = (
    ("core",),
    ("system", "weights"),
    ("manifest", "engines", "registry"),
    ("hookspecs", "command_options", "options", "probes", "testing"),
    ("plan", "wake"),
    ("checks", "progress", "export"),
    ("hooks",),
    ("reports",),
    ("commands", "inert"),
    ("startup",),
    ("plugin",),
    ("",),
)
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}
PURE = ("core", "system", "weights", "manifest", "engines", "registry", "probes", "checks",
        "export", "plan.plan", "plan.cached_results", "plan.size_search")  # fmt: skip
"""Folders and modules that do not import pytest."""

PYTEST = {"pytest", "_pytest", "pluggy", "xdist", "pytest_html"}
ENGINES = {"lmstudio", "xllamacpp", "gguf"}
MAY_IMPORT_ENGINES = ("engines",)
HEAVY = {"msgspec", "filelock", "yaml", "lmstudio", "httpx", "rich", "psutil", "huggingface_hub"}


def module_of(path: Path) -> str:
    """Return the module name without the package: `engines.base`, `engines` for its `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def folder_of(module: str) -> str:
    return module.partition(".")[0]


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
    """Dotted names that `module` imports; those of the package have a leading dot."""
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
    """Modules of the package that `module` imports, directly or indirectly."""
    seen: set[str] = set()
    todo = {module}
    while todo:
        seen |= todo
        todo = {each for one in todo for each in own_imports(one)} - seen
    return seen


@pytest.mark.parametrize("module", FILES)
def test_imports_run_one_way(module: str) -> None:
    own = RANK[folder_of(module)]
    above = {
        name
        for name in own_imports(module)
        if folder_of(name) != folder_of(module) and RANK[folder_of(name)] > own
    }
    assert not above, f"{module} must not import {sorted(above)}"


def test_folders_do_not_import_each_other() -> None:
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for name in FILES:
        graph[folder_of(name)] |= {folder_of(own) for own in own_imports(name)} - {folder_of(name)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("top", [PACKAGE, TESTS], ids=["package", "tests"])
def test_a_folder_has_at_most_ten_files(top: Path) -> None:
    count = Counter(path.parent for path in top.rglob("*.py") if path.stem != "__init__")
    assert count
    assert {str(folder): n for folder, n in count.items() if n > MOST_FILES} == {}


def test_a_public_name_is_defined_once() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for module, path in FILES.items():
        for name in defined(ast.parse(path.read_text(encoding="utf-8"))):
            places[name].append(module)
    # pytest names the hooks; a fixture of the plugin's is replaced where the plugin is inert.
    given = ("_", "pytest_", "lmstrix_model", "lmstrix_embedding")
    repeated = {
        name: modules
        for name, modules in places.items()
        if len(modules) > 1 and not name.startswith(given)
    }
    assert repeated == {}


def defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (each.id for each in targets if isinstance(each, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def test_modules_have_no_import_cycles() -> None:
    graph = {name: own_imports(name, for_types=False) for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    "module", [name for name in FILES if name in PURE or folder_of(name) in PURE]
)
def test_pure_modules_do_not_import_pytest(module: str) -> None:
    for name in reached(module):
        assert not foreign_imports(name) & PYTEST, f"{module} imports it by way of {name}"


@pytest.mark.parametrize(
    "module", [name for name in FILES if not name.startswith(MAY_IMPORT_ENGINES)]
)
def test_only_engines_import_engines(module: str) -> None:
    assert not foreign_imports(module) & ENGINES


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=name or ".") for name, path in FILES.items()]
)
def test_files_are_short_and_have_specific_names(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert path.stem not in ("utils", "helpers", "manager", "misc", "common")


def test_the_installed_plugin_imports_nothing_heavy() -> None:
    program = "import pytest_lmstrix.plugin, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "pytest_lmstrix.plugin" in loaded
    assert not HEAVY & set(loaded)


def test_a_worker_imports_nothing_that_is_the_controllers() -> None:
    program = "import pytest_lmstrix.startup, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "pytest_lmstrix.checks.loader" in loaded
    assert not {"yaml", "rich", "httpx", "jinja2", "lmstudio", "jsonschema"} & set(loaded)
    ours = {".".join(name.split(".")[1:3]) for name in loaded if name.startswith("pytest_lmstrix.")}
    assert (
        not {"plan.build", "hooks.xdist.scheduler", "hooks.xdist.controller", "registry.store"}
        & ours
    )
    assert not {name for name in ours if name.startswith(("reports", "manifest", "commands"))}


def test_a_model_run_imports_no_test_dependencies() -> None:
    tree = ast.parse(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    names = {
        name.partition(".")[0]
        for node in import_statements(tree, for_types=False)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert names <= {*sys.stdlib_module_names, "pytest"}
