"""The public names of `pytest_lmstrix`, and the cost of importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pytest_lmstrix
from pytest_lmstrix import Registry, Verdict
from tests.registry.results import a_result


@pytest.mark.parametrize("name", pytest_lmstrix.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(pytest_lmstrix, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Registri'"):
        getattr(pytest_lmstrix, "Registri")  # noqa: B009
    assert not hasattr(pytest_lmstrix, "annotation")


def test_a_star_import_exports_all_public_names() -> None:
    names: dict[str, object] = {}
    exec("from pytest_lmstrix import *", names)
    assert set(pytest_lmstrix.__all__) <= set(names)


def test_importing_the_package_imports_no_submodules() -> None:
    program = "import sys, pytest_lmstrix; print(*(m for m in sys.modules if 'lmstrix' in m))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"pytest_lmstrix"]


def test_the_registry_returns_none_for_an_unknown_model(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl")
    assert registry.status("m") is None
    assert registry.verified_context("m") is None
    assert registry.history("m") == ()
    assert list(tmp_path.iterdir()) == []
    registry.append(a_result(8192, "out_of_memory"))
    assert registry.verified_context("m") is None
    registry.append(a_result(4096))
    assert registry.verified_context("m") == 4096
    status = registry.status("m")
    assert status is not None
    assert (status.status, status.smallest_bad_verdict) == ("completed", Verdict.OUT_OF_MEMORY)
    assert [result.context_length for result in registry.history("m")] == [8192, 4096]
    assert registry.verified_context("another") is None
