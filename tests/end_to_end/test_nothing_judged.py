"""A run that judged no model is not green, and one line gives the reason."""

from __future__ import annotations

import pytest

from tests.end_to_end.project import Project


@pytest.mark.parametrize("xdist", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_run_whose_models_are_all_missing_fails(project: Project, xdist: tuple[str]) -> None:
    project.engine(**{"llama-3.2-3b-instruct": "", "other": ""})
    project.manifest("[{id: llama-3.2-3b-instrct, contexts: [512]}]")
    result = project.run("--lmstrix", "-rx", *xdist)
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["XFAIL*", "did you mean 'llama-3.2-3b-instruct'[?]"])
    result.stdout.fnmatch_lines(
        [
            "lmstrix: no model was judged (1 model: model_not_found): llama-3.2-3b-instrct:"
            " did you mean 'llama-3.2-3b-instruct'[?]"
        ]
    )


def test_one_missing_model_beside_others_fails_no_run(project: Project) -> None:
    project.manifest("[{id: tiny, contexts: [512]}, {id: zzz, contexts: [512]}]")
    result = project.run("--lmstrix")
    result.assert_outcomes(passed=1, xfailed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*no model was judged*")
    result.stdout.no_fnmatch_line("*did you mean*")
