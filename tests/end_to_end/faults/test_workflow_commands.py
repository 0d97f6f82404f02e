"""On GitHub Actions, nothing that a run prints is a command to the runner."""

from __future__ import annotations

import json
import re

import pytest

from tests.end_to_end.project import Project

TEXTS = [
    "::add-mask::x",
    "said\n  ::stop-commands::x",
    "said ##[add-mask]x",
    "said\r::set-output name=a::x",
    "\ufeff::add-mask::x",
    "said\n\t\u200b::error file=a,line=1::x\r\n::endgroup::",
    "#\u200b#[add-mask]x",
]
IDS = ["::add-mask::m", "##[add-mask]m", "  ::error::m", "a::b", "m]##[error]"]
FLEET = """
import json
from pathlib import Path
from tests.standin.fake_engine import FakeEngine
from tests.standin.lmstudio.models.behaviours import Behaviour, Refused, Says
from tests.standin.lmstudio.errors import ServerError
from tests.standin.lmstudio.models.model import StandInModel

TEXTS, IDS = json.loads(Path(__file__).with_name("hostile.json").read_text("utf-8"))

class NotLoaded(Behaviour, frozen=True, tag=True):
    text: str = ""
    def check_load(self, load):
        raise Refused(ServerError(title=self.text, cause=self.text))

class NotAnswered(Behaviour, frozen=True, tag=True):
    text: str = ""
    def check_prompt(self, prompt):
        raise Refused(ServerError(title=self.text, cause=self.text))

def pytest_lmstrix_engines(config):
    models = [
        StandInModel(key=f"{kind.__name__}-{at}", behaviours=(kind(text=text),))
        for kind in (Says, NotLoaded, NotAnswered) for at, text in enumerate(TEXTS)
    ]
    return [FakeEngine((*models, *(StandInModel(key=id) for id in IDS)))]
"""
OWN = """
import logging, sys, warnings
import pytest

ENDS = {"skip": pytest.skip, "xfail": pytest.xfail, "fail": pytest.fail}

@pytest.fixture
def said(lmstrix_model, request):
    text = lmstrix_model.complete("Say it.", max_tokens=99).text
    print(text)
    yield text
    print(text, file=sys.stderr)
    if "teardown" in request.node.name:
        raise RuntimeError(text)

@pytest.mark.lmstrix(match="Says-*", contexts=[512])
@pytest.mark.parametrize("end", ["skip", "xfail", "fail", "raise", "warn", "teardown"])
def test_own(said, end):
    for letter in said:
        sys.stdout.write(letter)
    logging.getLogger("own").warning(said)
    if end == "raise":
        raise ValueError(said)
    if end == "warn":
        warnings.warn(said)
    ENDS.get(end, str)(said)
"""


def commands(printed: str) -> list[str]:
    """The lines that a runner of GitHub Actions takes for a command.

    `::name::` where a trimmed line begins, `##[name]` anywhere in it; the comparison skips
    characters that take no room.
    """
    found = []
    for line in re.split(r"\r\n|\r|\n", printed):
        seen = re.sub("[\x00-\x08\x0e-\x1b\x7f\xad\u200b-\u200f\u2060-\u2064\ufeff]", "", line)
        if re.match(r"\s*::[^:].*?::", seen) or re.search(r"##\[[^\]]*\]", seen):
            found.append(line)
    return found


@pytest.fixture
def hostile(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (project.path / "hostile.json").write_text(json.dumps([TEXTS, IDS]), encoding="utf-8")
    project.pytester.makeconftest(FLEET)
    project.pytester.makepyfile(test_own=OWN)
    names = [f"{kind}-{at}" for kind in ("Says", "NotLoaded", "NotAnswered")
             for at in range(len(TEXTS))]  # fmt: skip
    project.manifest(json.dumps([{"id": name, "contexts": [512]} for name in [*names, *IDS]]))
    return project


def printed(result: pytest.RunResult) -> str:
    return result.stdout.str() + "\n" + result.stderr.str()


def test_the_parser_finds_commands() -> None:
    assert all(commands(text) for text in TEXTS)
    assert not commands("a.py::test_b[m-1]\n## x\n# #[add-mask]\n: :add-mask::x")


@pytest.mark.parametrize(
    "args",
    [("-v", "-rA"), ("-s", "-v"), ("-n", "2", "-v"), ("--log-cli-level=INFO", "--tb=native")],
    ids=" ".join,
)
def test_a_hostile_fleet_gives_no_command_to_the_runner(
    hostile: Project, args: tuple[str, ...]
) -> None:
    result = hostile.run_apart(
        "--lmstrix", "--all", "--color=yes", *args, "test_own.py", "models.yaml"
    )
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 2 + len(IDS)
    assert outcomes["failed"] >= 4 * len(TEXTS)
    assert outcomes["errors"] == len(TEXTS)
    assert "add-mask" in printed(result)
    assert commands(printed(result)) == []
    for args in (("--lmstrix-list", "-v"), ("--lmstrix-health",)):
        assert commands(printed(hostile.run_apart(*args))) == []


@pytest.mark.parametrize("command", ["--lmstrix", "--lmstrix-list"])
def test_a_mistake_in_a_hostile_manifest_gives_no_command_to_the_runner(
    hostile: Project, command: str
) -> None:
    hostile.manifest("[{id: '##[add-mask]x', contexts: '##[add-mask]y', '##[error]z': 1}]")
    result = hostile.run_apart(command)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "add-mask]x" in printed(result)
    assert commands(printed(result)) == []


def test_live_progress_gives_no_command_to_the_runner(hostile: Project) -> None:
    hostile.pytester.makepyfile(
        quick="""
        import threading
        import pytest_lmstrix.progress.display as display
        display.LINE_SECONDS = display.REDRAW_SECONDS = 0.01
        shown = threading.Event()
        write = display.Screen._write
        def noted(screen, text):
            write(screen, text)
            if "add-mask" in text:
                shown.set()
        display.Screen._write = noted
        """,
        test_own="""
        import quick
        def test_own(lmstrix_model):
            assert quick.shown.wait(60)
        """,
    )
    hostile.manifest("[{id: '##[add-mask]m', contexts: [512]}]")
    result = hostile.run_apart("--lmstrix", "-p", "quick", "test_own.py")
    result.assert_outcomes(passed=1)
    assert commands(printed(result)) == []
