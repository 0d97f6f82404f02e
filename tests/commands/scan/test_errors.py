"""What stops a scan, and what does not."""

from __future__ import annotations

import pytest

from tests.commands.scan.scans import MODELS, found, scan
from tests.end_to_end.project import Project
from tests.standin.lmstudio import Fault, LmStudioServer


def test_an_unreachable_named_host_is_reported_with_exit_1(
    empty: Project, server: LmStudioServer, unreachable_host: str
) -> None:
    result = scan(empty, server, args=(f"--lmstrix-host={unreachable_host}",))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"lmstudio {server.host}  3 models",
                                 f"lmstudio {unreachable_host} * not asked: *"])  # fmt: skip
    assert len(found(empty)) == 3
    assert result.errlines == []


def test_a_server_error_is_reported(empty: Project, server: LmStudioServer) -> None:
    fault = Fault(where="listDownloadedModels", kind="close_socket", times=9)
    with LmStudioServer(MODELS, faults=[fault]) as ill:
        result = scan(empty, ill, server)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"lmstudio {ill.host} * not asked: *"])
    assert len(found(empty)) == 3


def test_an_lm_studio_not_configured_is_optional(
    empty: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pytest_lmstrix.engines.lmstudio.connection._Client.find_default_local_api_host",
        lambda: None,
    )
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "def pytest_lmstrix_engines(config): return FakeEngine()"
    )
    result = scan(empty)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["lmstudio * not asked: LM Studio is not reachable*"])
    assert [model.engine for model in found(empty).values()] == ["fake"]
    empty.manifest("\n  - {id: a, engine: lmstudio}")
    assert scan(empty).ret == pytest.ExitCode.TESTS_FAILED, "models.yaml relies on it"


def test_unknown_engines_of_the_manifest_are_reported(
    empty: Project, server: LmStudioServer
) -> None:
    empty.manifest("\n  - {id: a, engine: fake}")
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["fake * not asked: 'fake' is not a known engine*"])
    result.stdout.no_fnmatch_line("gone*")


def test_a_missing_llamacpp_package_is_reported(
    empty: Project, server: LmStudioServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_lmstrix.engines.catalog.find_spec", lambda name: None)
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["llamacpp * not asked: * pip install 'pytest-lmstrix?llamacpp?'", "3 new models*"]
    )


def test_an_invalid_manifest_stops_the_scan(empty: Project, server: LmStudioServer) -> None:
    empty.manifest("\n  - {id: a, contexst: 1}")
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: models.yaml:3: model 'a': 'contexst' is not a valid key*"])
    assert server.calls == []


def test_a_manifest_that_cannot_be_appended_to_is_reported(
    empty: Project, server: LmStudioServer
) -> None:
    empty.manifest("[{id: a, engine: lmstudio}]")
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, result.errlines)
    assert line.startswith("ERROR: models.yaml: nothing can be appended")
    result.stdout.fnmatch_lines([f"lmstudio {server.host}  3 models"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ConnectionRefusedError('not running')", "not running"),
        ("KeyError('data')", "KeyError: 'data'"),
        ("SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_failing_custom_engine_does_not_stop_the_others(
    empty: Project, server: LmStudioServer, error: str, message: str
) -> None:
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "class Away(FakeEngine):\n"
        f"    def models(self): raise {error}\n"
        "def pytest_lmstrix_engines(config): return [Away(name='away'), FakeEngine()]"
    )
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [f"away * not asked: {message}", "fake * 1 model", "4 new models in models.yaml"]
    )


def test_ctrl_c_ends_the_scan_quietly_without_changes(empty: Project) -> None:
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "class Interrupted(FakeEngine):\n"
        "    def models(self): raise KeyboardInterrupt\n"
        "    def close(self): print('closed')\n"
        "def pytest_lmstrix_engines(config): return Interrupted(name='lmstudio')"
    )
    result = empty.run_apart("--lmstrix-scan")
    assert (result.ret, result.outlines) == (pytest.ExitCode.INTERRUPTED, ["closed"])
    assert result.errlines == []
    assert not (empty.path / "models.yaml").exists()
