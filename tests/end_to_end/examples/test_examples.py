"""Each folder of `examples/` passes with a good model, and fails with one that answers wrongly."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import pytest_lmstrix.startup  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from tests.end_to_end.project import Project
from tests.standin import weights
from tests.standin.lmstudio import LmStudioServer, Says, StandInModel
from tests.standin.lmstudio.models.behaviours import Admits, AnyBehaviour, CallsTool

EXAMPLES = Path(__file__).parents[3] / "examples"
ON_SMOLLM2 = ("json_extraction", "summarizer", "prompt_regression")
WITHOUT_WORKED_EXAMPLES = "Review: {review}\nSentiment:"


def find_order(customer: str, after: int, when: str) -> CallsTool:
    arguments = json.dumps({"customer": customer})
    return CallsTool(name="find_order", arguments=arguments, after=after, when=when)


def delivery_day(arguments: str) -> CallsTool:
    return CallsTool(name="delivery_day", arguments=arguments, after=1, when=ADA)


ADA, RETRY = "I am Ada Lovelace", "Find the order"
ORDER, DAY = find_order("Ada Lovelace", 0, ADA), delivery_day('{"order": 1042}')
RETRIES = (find_order("Ada", 0, RETRY), find_order("Ada Lovelace", 1, RETRY))
TWO_CALLS = "test_two_calls_that_follow_from_each_other"
CITED = "test_an_answer_cites_its_passage[What is the notice period?-1]"
INVOICE = "test_an_invoice_is_read[bakery]"
REVIEW = "test_a_review_is_sorted[Terrible service.]"
SUMMARY = "The council of Aldbrook closes the bridge to lorries, and repairs it for 48,000 euros."

Fleet = dict[str, tuple[str, tuple[AnyBehaviour, ...]]]
FLEETS: dict[str, Fleet] = {
    "agent_tool_loop": {
        "good": ("", (ORDER, DAY, *RETRIES)),
        "calls nothing": (TWO_CALLS, ()),
        "wrong argument": (TWO_CALLS, (ORDER, delivery_day('{"order": 1024}'))),
        "a text for a number": (TWO_CALLS, (ORDER, delivery_day('{"order": "1042"}'))),
        "never ends": (TWO_CALLS, tuple(find_order("Ada Lovelace", n, ADA) for n in range(9))),
        "says another day": (TWO_CALLS, (ORDER, DAY, *RETRIES, Says(text="On Monday."))),
        "gives up": ("test_an_error_of_a_tool_is_not_the_end", RETRIES[:1]),
        "calls without need": (
            "test_nothing_is_called_without_need",
            (find_order("Ada Lovelace", 0, "hello"),),
        ),
    },
    "rag_with_citations": {
        "good": ("", (Admits(),)),
        "invents": ("test_an_answer_that_no_passage_has_is_not_invented", ()),
        "no citation": (CITED, (Says(text="Four weeks."),)),
        "wrong citation": (CITED, (Says(text="It is four weeks [2]."),)),
        "a second citation": (CITED, (Says(text="It is four weeks [1] [3]."),)),
        "wrong fact": (CITED, (Says(text="It is two weeks [1]."),)),
    },
    "json_extraction": {
        "no JSON": (INVOICE, (Says(text="Harbour Bakery, 195.50"),)),
        "wrong total": (
            INVOICE,
            (Says(text='{"number": "2024-117", "customer": "Harbour Bakery", "total": 180}'),),
        ),
        "missing field": (INVOICE, (Says(text='{"number": "2024-117", "total": 195.5}'),)),
    },
    "summarizer": {
        "good": ("", (Says(text=SUMMARY),)),
        "too long": ("test_it_is_short_and_finished", (Says(text=SUMMARY * 20),)),
        "beside the point": ("test_it_names_what_matters", (Says(text="It was a long day."),)),
        "invents": ("test_it_invents_no_number", (Says(text=f"{SUMMARY} In 1932."),)),
    },
    "prompt_regression": {"always the same": (REVIEW, (Says(text="positive"),))},
}
"""Of each example: models, the test that fails with each (none with a good one), how it behaves."""


def read_entry(name: str) -> dict[str, object]:
    text = (EXAMPLES / name / "models.yaml").read_text(encoding="utf-8")
    (entry,) = yaml.safe_load(text)["models"]
    return dict(entry)


@pytest.mark.parametrize("name", FLEETS)
def test_an_example_tells_good_models_from_bad_ones(project: Project, name: str) -> None:
    fleet = FLEETS[name]
    shutil.copytree(EXAMPLES / name, project.path, dirs_exist_ok=True)
    sizes = read_entry(name)["contexts"]
    entries = [{"id": key, "engine": "lmstudio", "contexts": sizes} for key in fleet]
    (project.path / "models.yaml").write_text(yaml.safe_dump({"models": entries}))
    models = [
        StandInModel(key=key, trained_for_tool_use=True, behaviours=behaviours)
        for key, (_, behaviours) in fleet.items()
    ]
    with LmStudioServer(models) as server:
        project.run("--lmstrix", "--all", "--lmstrix-host", server.host, f"test_{name}.py")
    assert server.violations == []
    for key, (fails, _) in fleet.items():
        verdicts = {each.check: each.verdict for each in project.results if each.model == key}
        wrong = [check for check, verdict in verdicts.items() if verdict is not Verdict.OK]
        assert set(verdicts.values()) <= {Verdict.OK, Verdict.WRONG_ANSWER}
        assert (fails in wrong) if fails else (verdicts and not wrong), (key, wrong)


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp")
def test_examples_pass_on_a_real_model_and_a_worse_prompt_fails(project: Project) -> None:
    try:
        gguf = weights.smollm2()
    except Failure as failure:
        if failure.verdict is not Verdict.UNREACHABLE:
            raise
        pytest.skip(f"no model at hand: {failure.text}")
    for name in ("models.yaml", "pytest.ini"):  # one project of all three, for one load
        texts = {(EXAMPLES / each / name).read_text(encoding="utf-8") for each in ON_SMOLLM2}
        assert len(texts) == 1
        text = re.sub(r"source: .*", f"source: '{gguf}'", texts.pop())
        (project.path / name).write_text(text, encoding="utf-8")
    for name in ON_SMOLLM2:
        shutil.copytree(EXAMPLES / name, project.path / name)
        (project.path / name / "pytest.ini").unlink()
    options = ("--lmstrix", "--all", "--lmstrix-fail-on-regression=1000")
    project.run(*options, *ON_SMOLLM2).assert_outcomes(passed=10)
    assert {each.verdict for each in project.results} == {Verdict.OK}
    assert [each.samples for each in project.results if each.samples] == [10] * 4
    (project.path / "prompt_regression" / "prompt.txt").write_text(WITHOUT_WORKED_EXAMPLES)
    worse = project.run(*options, "-k", "Terrible", "prompt_regression")
    worse.assert_outcomes(failed=1)
    worse.stdout.fnmatch_lines(["*of 10 samples passed*at least 6 required*"])
    worse.stdout.fnmatch_lines(["lmstrix: 1 regression failed this run*"])


@pytest.mark.parametrize("name", FLEETS)
def test_an_example_is_a_project_of_its_own(project: Project, name: str) -> None:
    """What a user has after copying the folder, and the models of its manifest."""
    shutil.copytree(EXAMPLES / name, project.path, dirs_exist_ok=True)
    (project.path / "conftest.py").unlink()
    ids = project.ids("--lmstrix", "--all")
    (size,) = read_entry(name)["contexts"]  # type: ignore[misc]
    case = f"{read_entry(name)['id']}-{size}"
    assert f"models.yaml::test_full[{case}]" in ids
    assert any(each.startswith(f"test_{name}.py::") and f"[{case}" in each for each in ids)


def test_the_search_of_an_example_needs_no_model(project: Project) -> None:
    shutil.copytree(EXAMPLES / "rag_with_citations", project.path, dirs_exist_ok=True)
    project.run().assert_outcomes(passed=3, skipped=10)


def test_the_table_of_examples_has_all_of_them() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    folders = {each.name for each in EXAMPLES.iterdir() if each.is_dir()}
    assert set(re.findall(r"^\| \[`(\w+)/`\]\(\1/", table, re.MULTILINE)) == folders
    assert folders == {*FLEETS, "workflows"}
    assert set(ON_SMOLLM2) == {
        name for name in FLEETS if read_entry(name)["id"] == "smollm2-135m-instruct"
    }
