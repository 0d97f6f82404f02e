"""Properties and reasons in JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tests.end_to_end.project import Project


def test_junit_has_properties_and_reasons(project: Project) -> None:
    project.engine(tiny="", lost="behaviours=(MissingFromDisk(),)")
    project.manifest("[{id: tiny, contexts: [512]}, {id: lost, contexts: [512]}]")
    project.run("--lmstrix", "--junitxml=out.xml").assert_outcomes(passed=1, xfailed=1)
    cases = {case.get("name"): case for case in ET.parse(project.path / "out.xml").iter("testcase")}
    properties = {
        each.get("name"): each.get("value")
        for each in cases["test_full[tiny-512]"].iter("property")
    }
    assert properties["lmstrix_model"] == "tiny"
    assert properties["lmstrix_context_length"] == "512"
    assert properties["lmstrix_verdict"] == "ok"
    skipped = cases["test_full[lost-512]"].find("skipped")
    assert skipped is not None
    assert "model_not_found" in str(skipped.get("message"))


def junit_properties(project: Project) -> dict[str, dict[str, str]]:
    """The properties of each test in out.xml."""
    cases = ET.parse(project.path / "out.xml").iter("testcase")
    return {
        str(case.get("name")): {
            str(each.get("name")): str(each.get("value")) for each in case.iter("property")
        }
        for case in cases
    }


def asked(model: str, size: int) -> dict[str, str]:
    return {"lmstrix_model": model, "lmstrix_context_length": str(size)}


def test_junit_has_model_and_size_of_a_skipped_test(project: Project) -> None:
    project.engine(tiny="behaviours=(OutOfMemory(above=5000),)")
    project.manifest("[{id: tiny, contexts: [8192, 16384, 32768]}]")
    project.run("--lmstrix", "--junitxml=out.xml").assert_outcomes(failed=1, skipped=2)
    found = junit_properties(project)
    assert found["test_full[tiny-8192]"]["lmstrix_verdict"] == "out_of_memory"
    assert found["test_full[tiny-16384]"] == asked("tiny", 16384)
    assert found["test_full[tiny-32768]"] == asked("tiny", 32768)


def test_junit_has_model_and_size_of_an_unreachable_test(project: Project) -> None:
    project.pytester.makeconftest(
        """
        from pytest_lmstrix.weights.download import WEIGHTS
        from pytest_lmstrix.core.failure import Failure
        from pytest_lmstrix.core.verdicts import Verdict
        class Gone:
            name = "fake"
            def models(self): return []
            def load(self, model, context_length, progress):
                raise Failure("gone", verdict=Verdict.UNREACHABLE, phase="load", code=WEIGHTS)
        def pytest_lmstrix_engines(config): return Gone()
        """
    )
    project.run("--lmstrix", "--junitxml=out.xml").assert_outcomes(errors=1, skipped=1)
    found = junit_properties(project)
    assert found["test_full[tiny-512]"]["lmstrix_verdict"] == "unreachable"
    assert found["test_full[tiny-1024]"] == asked("tiny", 1024)


def test_junit_has_model_and_size_of_a_broken_test(project: Project) -> None:
    project.pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.fixture
        def broken(): raise RuntimeError("bug")
        def test_broken(broken, lmstrix_model): pass
        def test_buggy(lmstrix_model): lmstrix_model.no_such_thing
        @pytest.mark.skip
        def test_skipped(lmstrix_model): pass
        """
    )
    project.manifest("[{id: tiny, contexts: [512]}]")
    result = project.run("--lmstrix", "test_own.py", "--junitxml=out.xml")
    result.assert_outcomes(errors=1, failed=1, skipped=1)
    found = junit_properties(project)
    assert len(found) == 3
    assert all(properties == asked("tiny", 512) for properties in found.values())
