"""`--lmstrix-scan` with the unmodified SDK."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lmstrix.core.types import Model
from tests.commands.scan.scans import MODELS, found, scan
from tests.end_to_end.project import Project
from tests.standin.lmstudio import LmStudioServer, StandInModel


def test_a_manifest_is_created_from_lm_studio(empty: Project, server: LmStudioServer) -> None:
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([
        f"lmstudio {server.host}  3 models",
        "3 new models in models.yaml",
        "model      engine    type       *size  quantization  architecture  declared  capabilities",
        "org/small  lmstudio  llm        1.0 GB  Q4_K_M        llama          131,072  vision",
        "big@q8_0   lmstudio  llm        2.0 GB  Q4_K_M        llama           32,768  tools",
        "embedding models: no size is tested",
        "vectors",
    ])  # fmt: skip
    models = found(empty)
    assert models["org/small"] == Model(
        id="org/small",
        engine="lmstudio",
        context_limit=131_072,
        size_bytes=1_000_000_000,
        architecture="llama",
        quantization="Q4_K_M",
        capabilities=("vision",),
    )
    assert models["vectors"].type == "embedding"
    text = (empty.path / "models.yaml").read_text(encoding="utf-8")
    assert text.startswith("# The models that `pytest --lmstrix` tests")
    assert server.violations == []
    assert server.loads() == []


def test_existing_content_is_kept_byte_for_byte(empty: Project, server: LmStudioServer) -> None:
    old = b"models:  # mine\r\n  - {id: 'big@q8_0', engine: lmstudio}\r\n\r\n  # the end"
    path = empty.path / "models.yaml"
    path.write_bytes(old)
    scan(empty, server).stdout.fnmatch_lines(["2 new models in models.yaml"])
    new = path.read_bytes()
    assert new.startswith(old)
    assert list(found(empty)) == ["big@q8_0", "org/small", "vectors"]
    scan(empty, server).stdout.fnmatch_lines(["0 new models in models.yaml"])
    assert path.read_bytes() == new


def test_missing_models_are_reported_but_not_removed(
    empty: Project, server: LmStudioServer
) -> None:
    empty.manifest(
        "\n  - {id: lost, engine: lmstudio}\n  - {id: vectors, engine: lmstudio, type: embedding}"
        "\n  - {id: far, engine: lmstudio, source: 'https://host.example/a.gguf'}"
    )
    empty.pytester.makeconftest(
        "from tests.standin.fake_engine import FakeEngine\n"
        "def pytest_lmstrix_engines(config): return [FakeEngine()]"
    )
    result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    lines = result.outlines
    at = lines.index("gone: in models.yaml, but no longer available")
    assert lines[at + 1 : at + 3] == ["lmstudio  lost", ""]
    assert set(found(empty)) == {"lost", "vectors", "far", "org/small", "big@q8_0", "tiny"}
    assert found(empty)["tiny"].engine == "fake"


def test_no_model_is_reported_missing_while_a_host_is_unreachable(
    empty: Project, server: LmStudioServer, unreachable_host: str
) -> None:
    empty.manifest("\n  - {id: lost, engine: lmstudio}")
    result = scan(empty, server, args=(f"--lmstrix-host={unreachable_host}",))
    result.stdout.no_fnmatch_line("gone*")
    result.stdout.fnmatch_lines(["3 new models in models.yaml"])


@pytest.mark.parametrize(
    "broken",
    [{"type": "diffusion"}, {"modelKey": None}, {"sizeBytes": "many"}, {"type": 5, "modelKey": 3}],
    ids=["type", "key", "size", "both"],
)
def test_an_invalid_listing_entry_is_skipped(empty: Project, broken: dict[str, Any]) -> None:
    models = [StandInModel(key="bad\x1b[2J", listing=broken), *MODELS]
    with LmStudioServer(models) as server:
        result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["3 new models in models.yaml", "left out", "*which LM Studio*"])
    assert "\x1b" not in result.stdout.str()
    assert list(found(empty)) == ["org/small", "big@q8_0", "vectors"]
    assert result.errlines == []


def test_facts_invalid_in_a_manifest_are_omitted_and_reported(empty: Project) -> None:
    models = [
        StandInModel(key="two\nlines"),
        StandInModel(key="endless", max_context_length=2**40),
    ]
    with LmStudioServer(models) as server:
        result = scan(empty, server)
    result.stdout.fnmatch_lines([
        "left out",
        "lmstudio: 'two lines' is not a valid id for a manifest",
        "lmstudio: 'endless': context_limit 1099511627776 is not valid; left out",
    ])  # fmt: skip
    assert found(empty)["endless"].context_limit is None
    assert list(found(empty)) == ["endless"]


def test_an_id_that_hides_what_it_is_is_left_out_and_shown_without_its_disguise(
    empty: Project,
) -> None:
    keys = ["safe\u202efugg", "\x1b[31mred", "zero\u200bwidth", "fine"]
    with LmStudioServer([StandInModel(key=key) for key in keys]) as server:
        result = scan(empty, server)
    assert list(found(empty)) == ["fine"]
    shown = result.stdout.str() + result.stderr.str()
    for harmless in ("safefugg", "red", "zerowidth"):
        assert f"lmstudio: '{harmless}' is not a valid id for a manifest" in shown
    assert not {"\u202e", "\x1b", "\u200b"} & set(shown)
    assert "\u202e" not in (empty.path / "models.yaml").read_text("utf-8")


def test_without_models_no_manifest_is_created(empty: Project) -> None:
    with LmStudioServer() as server:
        result = scan(empty, server)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["0 new models in models.yaml, which was not created"])
    assert not (empty.path / "models.yaml").exists()


@pytest.mark.parametrize("width", [40, 80])
def test_output_fits_the_terminal(
    empty: Project, server: LmStudioServer, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = scan(empty, server).outlines
    assert max(map(len, lines)) <= width
    assert any(line.startswith("org/small") for line in lines)


def test_a_model_on_two_hosts_is_listed_once(empty: Project, server: LmStudioServer) -> None:
    others = [MODELS[0], StandInModel(key="big@q8_0", size_bytes=7), StandInModel(key="other")]
    with LmStudioServer(others) as second:
        result = scan(empty, server, second)
        result.stdout.fnmatch_lines([
            f"lmstudio {server.host}  3 models",
            f"lmstudio {second.host}  3 models",
            "left out",
            f"lmstudio {second.host}: 'big@q8_0' is not the same file as on"
            f" lmstudio {server.host}",
        ])  # fmt: skip
        result.stdout.no_fnmatch_line("*'org/small' is not the same*")
    assert list(found(empty)) == ["org/small", "big@q8_0", "vectors", "other"]
    assert found(empty)["big@q8_0"].size_bytes == 2_000_000_000
