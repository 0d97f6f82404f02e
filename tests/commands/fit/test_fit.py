"""`--lmstrix-fit`: the memory of models before any load or download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp")

from pytest_lmstrix.commands import fit
from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import DeviceNeed, MachineMemory
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.engines.llamacpp import dry_run
from pytest_lmstrix.plan.estimates import EstimateCache
from pytest_lmstrix.plan.fitting import FitRow
from pytest_lmstrix.plan.memory import largest_context
from pytest_lmstrix.weights.source import parts
from tests.end_to_end.project import Project
from tests.standin import header_file, model_files
from tests.standin.llama_server.program import write_llama_server
from tests.standin.range_server import range_server
from tests.standin.tiny_models import write_tiny_model

GIB = 1024**3


@pytest.fixture(autouse=True)
def _empty_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMSTRIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def fitted(project: Project) -> Project:
    header_file.write_tiny_llama(project.path / "tiny.gguf")
    header_file.write_llama_70b(project.path / "big.gguf")
    project.manifest(
        "[{id: tiny, engine: llamacpp, source: tiny.gguf, contexts: [512], tags: [small]},"
        " {id: big, engine: llamacpp, source: big.gguf, contexts: [4096]}]"
    )
    return project


def as_json(project: Project, *args: str) -> dict[str, Any]:
    result = project.run("--lmstrix-fit", "--lmstrix-format=json", *args)
    assert result.ret == 0, result.stderr.str()
    report: dict[str, Any] = json.loads(result.stdout.str())
    return report


def test_a_table_shows_what_each_model_needs_and_what_is_there(fitted: Project) -> None:
    result = fitted.run("--lmstrix-fit", "-k", "small")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "this machine: * of * MiB available",
            "model * context * KV cache type * device * weights * KV cache * compute * total *",
            "tiny * 512 * f16 * Host * 0 * 0 * yes",
            "tiny * 4,096 (largest) * f16 * Host * 0 * 2 * yes",
            "tiny * 512 * q8_0 * Host *",
        ]
    )
    assert "big" not in result.stdout.str()
    assert "1/1 tiny" in result.stderr.str()
    assert "Traceback" not in result.stderr.str()


def test_the_json_has_these_keys_and_no_others(fitted: Project) -> None:
    report = as_json(fitted, "-k", "tiny")
    assert list(report) == ["schema", "machine", "models"]
    assert report["schema"] == 1
    assert list(report["machine"]) == ["total_bytes", "available_bytes", "devices"]
    for model in report["models"]:
        assert list(model) == ["id", "engine", "context_length", "kv_cache_type", "devices",
                               "total_bytes", "fits", "source"]  # fmt: skip
        for device in model["devices"]:
            assert list(device) == ["name", "weights_bytes", "kv_cache_bytes", "compute_bytes",
                                    "total_bytes", "free_bytes"]  # fmt: skip
        assert model["total_bytes"] == sum(each["total_bytes"] for each in model["devices"])
        assert model["source"] == "dry-run"
    rows = [(each["context_length"], each["kv_cache_type"]) for each in report["models"]]
    assert rows == [(512, "f16"), (4096, "f16"), (512, "q8_0"), (4096, "q8_0")]


def test_a_70b_model_does_not_fit(fitted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = MachineMemory(total_bytes=32 * GIB, available_bytes=30 * GIB)
    monkeypatch.setattr(fit, "read_machine", lambda *_: machine)
    rows = as_json(fitted, "-k", "big")["models"]
    assert [row["fits"] for row in rows] == [False, False]
    assert all(37 * GIB < row["total_bytes"] < 42 * GIB for row in rows)
    result = fitted.run("--lmstrix-fit", "-k", "big")
    result.stdout.fnmatch_lines(["big with f16: fits at no context length"])


def test_the_largest_context_that_fits_is_a_row(
    fitted: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = MachineMemory(total_bytes=64 * GIB, available_bytes=44 * GIB)
    monkeypatch.setattr(fit, "read_machine", lambda *_: machine)
    rows = as_json(fitted, "-k", "big")["models"]
    largest = {row["kv_cache_type"]: row["context_length"] for row in rows if row["fits"]}
    # 320 KiB a token in f16, beside 37 GiB of weights.
    assert 20_000 < largest["f16"] < 24_000
    assert 1.8 < largest["q8_0"] / largest["f16"] < 2.0


def test_a_second_time_the_estimates_come_from_the_cache(
    fitted: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("a dry run")

    first = as_json(fitted, "-k", "tiny")["models"]
    monkeypatch.setattr(dry_run, "estimate", refuse)
    second = as_json(fitted, "-k", "tiny")["models"]
    without_free = [
        [{**device, "free_bytes": 0} for device in row["devices"]] for row in (*first, *second)
    ]
    assert without_free[: len(first)] == without_free[len(first) :]
    assert (fitted.path / "reports" / "memory-estimates.json").is_file()
    assert not (fitted.path / "reports" / "registry.jsonl").exists()


def test_remote_weights_are_estimated_by_their_header_alone(project: Project) -> None:
    path = header_file.write_llama_70b(project.path / "far.gguf")
    with range_server(path) as server:
        project.manifest(
            f"[{{id: far, engine: llamacpp, source: '{server.base}/far.gguf', contexts: [512]}}]"
        )
        result = project.run("--lmstrix-fit")
        assert server.sent_bytes < 8 * 1024 * 1024
    result.stdout.fnmatch_lines(["far * 512 * f16 * CPU_REPACK * 37,*"])
    result.stdout.fnmatch_lines(["far: estimated from the header alone; *"])


def test_a_split_model_is_estimated_by_the_headers_of_its_files(project: Project) -> None:
    first = header_file.write_split_llama_70b(project.path / "far.gguf")
    with range_server(*parts(first)) as server:
        source = f"{server.base}/{first.name}"
        project.manifest(f"[{{id: far, engine: llamacpp, source: '{source}', contexts: [512]}}]")
        result = project.run("--lmstrix-fit")
        assert server.sent_bytes < 8 * 1024 * 1024
        result.stdout.fnmatch_lines(["far * 512 * f16 * CPU_REPACK * 37,*"])


def test_a_model_that_cannot_be_estimated_is_a_row_with_the_reason(project: Project) -> None:
    (project.path / "page.gguf").write_text("<html>" * 100)
    project.manifest(
        "[{id: page, engine: llamacpp, source: page.gguf},"
        " {id: gone, engine: llamacpp, source: gone.gguf},"
        " {id: other, engine: fake},"
        " {id: studio, engine: lmstudio},"
        " {id: wheel, engine: llamacpp, source: 'pypi://name==1/f.gguf'}]"
    )
    result = project.run("--lmstrix-fit", "--lmstrix-host=127.0.0.1:1")
    assert result.ret == 0
    assert "Traceback" not in result.stderr.str()
    for expected in (
        "page *- * not reported",
        "page: an HTML page, not a model",
        "gone: no such file: *gone.gguf",
        "other: not reported: engine 'fake' has no estimate",
        "studio: not reported: *",
        "wheel: *a run downloads the file",
    ):
        result.stdout.fnmatch_lines([expected])
    rows = as_json(project, "--lmstrix-host=127.0.0.1:1")["models"]
    assert {(row["source"], row["fits"], row["total_bytes"]) for row in rows} == {
        ("none", None, None)
    }
    assert [row["id"] for row in rows] == ["page", "gone", "other", "studio", "wheel"]


def test_a_broken_file_is_a_row_with_the_reason_of_its_header(project: Project) -> None:
    folder = project.path / "files"
    folder.mkdir()
    files = [file for file in model_files.write_broken(folder) if file.words]
    entries = (f"{{id: {json.dumps(f'{at}-{file.id}')}, engine: llamacpp,"
               f" source: {json.dumps(str(file.path))}}}"
               for at, file in enumerate(files))  # fmt: skip
    project.manifest(f"[{', '.join(entries)}]")
    result = project.run("--lmstrix-fit")
    assert result.ret == 0
    for at, file in enumerate(files):
        (line,) = (line for line in result.outlines if line.startswith(f"{at}-{file.id}: "))
        assert file.words in line
    assert len(files) > 60


def test_a_whole_file_is_estimated_whatever_its_architecture(project: Project) -> None:
    folder = project.path / "files"
    folder.mkdir()
    files = list(model_files.write_whole(folder))
    entries = (f"{{id: {json.dumps(file.id)}, engine: llamacpp, context_limit: 512,"
               f" contexts: [512], load: {{kv_cache_type: [f16]}},"
               f" source: {json.dumps(str(file.path))}}}" for file in files)  # fmt: skip
    project.manifest(f"[{', '.join(entries)}]")
    rows = as_json(project)["models"]
    assert {row["id"].removesuffix("+f16") for row in rows} == {file.id for file in files}
    for row in rows:
        assert (row["source"], row["fits"]) == ("dry-run", True), row
        assert row["total_bytes"] > 0


def test_a_declared_maximum_of_ten_million_tokens_is_estimated(project: Project) -> None:
    write_tiny_model(project.path / "scout.gguf", llama__context_length=10_485_760)
    project.manifest(
        "[{id: scout, engine: llamacpp, source: scout.gguf, contexts: [512],"
        " load: {kv_cache_type: [f16]}}]"
    )
    sizes = {row["context_length"]: row for row in as_json(project)["models"]}
    assert sizes[512]["fits"] is True
    assert 512 < max(sizes) <= 10_485_760


def test_each_variant_is_estimated_with_its_own_settings(project: Project) -> None:
    header_file.write_tiny_llama(project.path / "tiny.gguf")
    project.manifest(
        "[{id: tiny, engine: llamacpp, source: tiny.gguf, contexts: [4096],"
        " load: {kv_cache_type: [f32, q4_0]}}]"
    )
    found = [(row["id"], row["kv_cache_type"]) for row in as_json(project)["models"]]
    assert found == [("tiny+f32", "f32"), ("tiny+q4_0", "q4_0")]


def test_markdown_has_the_rows_of_the_table(fitted: Project) -> None:
    lines = fitted.run("--lmstrix-fit", "--lmstrix-format=md", "-k", "tiny").outlines
    assert lines[2].startswith("| model | engine | context | KV cache type | device |")
    assert lines[3] == "|" + " --- |" * 11
    assert all(line.startswith("| tiny | llamacpp |") for line in lines[4:])


@pytest.mark.parametrize("format", ["table", "json", "md"])
def test_a_keyword_that_matches_no_model_is_named(fitted: Project, format: str) -> None:
    result = fitted.run("--lmstrix-fit", "-k", "medium", f"--lmstrix-format={format}")
    assert result.ret == 0
    stream = result.stderr if format == "json" else result.stdout
    stream.fnmatch_lines(["no language model that matches -k 'medium'"])
    if format == "json":
        assert json.loads(result.stdout.str())["models"] == []


def test_a_size_that_cannot_be_estimated_leaves_the_others(project: Project) -> None:
    write_tiny_model(project.path / "tiny.gguf")
    project.manifest(
        "[{id: tiny, engine: llamacpp, source: tiny.gguf, contexts: [512, 2147483647],"
        " load: {kv_cache_type: [f16]}}]"
    )
    result = project.run("--lmstrix-fit")
    result.stdout.fnmatch_lines(
        ["tiny+f16 * 512 *yes", "tiny+f16 * 4,096 (largest) *yes", "tiny+f16 * not reported",
         "tiny+f16 at 2,147,483,647 with f16: *"]
    )  # fmt: skip
    assert "fits at no context length" not in result.stdout.str()


def test_a_narrow_table_keeps_what_counts() -> None:
    machine = MachineMemory(total_bytes=64 * GIB, available_bytes=30 * GIB)
    model = Model(id="organization/a-name-of-many-characters-q4_k_m-imatrix", engine="llamacpp")
    need = DeviceNeed(name="Host", weights_bytes=GIB, kv_cache_bytes=GIB, compute_bytes=GIB,
                      total_bytes=3 * GIB)  # fmt: skip
    row = FitRow(model=model, context_length=131_072, kv_cache_type="q8_0", needs=(need,),
                 fits=True, source="dry-run", largest=True)  # fmt: skip
    report = fit.FitReport(machine=machine, rows=(row,))
    lines = list(fit.fit_as_table(report, paint=lambda text, colour: text, width=80))
    assert all(len(line) <= 80 for line in lines)
    assert {"model", "context", "total", "fits"} <= set(lines[2].split())
    assert "131,072 (largest)" in lines[3]
    assert lines[3].endswith("yes")


def test_a_wrong_keyword_is_one_line(fitted: Project) -> None:
    result = fitted.run("--lmstrix-fit", "-k", "a b")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: -k: 'a b' *"])


def linear(per_token: int, weights: int, tries: list[int]) -> Callable[[int], Any]:
    def estimate(size: int) -> tuple[DeviceNeed, ...]:
        tries.append(size)
        total = weights + per_token * size
        return (
            DeviceNeed(name="Host", weights_bytes=weights, kv_cache_bytes=per_token * size,
                       compute_bytes=0, total_bytes=total),
        )  # fmt: skip

    return estimate


@pytest.mark.parametrize(
    ("available", "largest"),
    [(10**9, 100_000), (1_000_000, 9_728), (300_000, 2_816), (28_000, None), (43_600, 256)],
)
def test_the_largest_context_is_found_in_few_estimates(available: int, largest: int | None) -> None:
    tries: list[int] = []
    machine = MachineMemory(total_bytes=available, available_bytes=available)
    estimate = linear(100, 18_000, tries)
    found = largest_context(estimate, machine, limit=100_000, known={})
    assert found == largest
    assert len(tries) <= 6
    assert len(tries) == len(set(tries))


def test_a_failed_estimate_ends_the_search() -> None:
    def fail(size: int) -> tuple[DeviceNeed, ...]:
        raise Failure.from_engine("refused", phase="load")

    machine = MachineMemory(total_bytes=1, available_bytes=1)
    with pytest.raises(Failure, match="refused"):
        largest_context(fail, machine, limit=1000, known={})


def test_a_damaged_cache_is_as_none_and_is_replaced(tmp_path: Path) -> None:
    registry = tmp_path / "registry.jsonl"
    (tmp_path / "memory-estimates.json").write_bytes(b'{"schema": 1, "estim')
    need = DeviceNeed(name="Host", weights_bytes=1, kv_cache_bytes=2, compute_bytes=3,
                      total_bytes=6)  # fmt: skip
    cache = EstimateCache(registry)
    assert cache.get("key") is None
    cache.add("key", [need], headers={"files": "hash"})
    assert EstimateCache(registry).get("key") == (need,)
    assert EstimateCache(registry).header("files") == "hash"


def test_processes_add_to_one_cache(tmp_path: Path) -> None:
    registry = tmp_path / "registry.jsonl"
    first, second = EstimateCache(registry), EstimateCache(registry)
    assert first.get("a") is None
    second.add("b", [], headers={"b": "1"})
    first.add("a", [], headers={"a": "2"})
    assert EstimateCache(registry).get("b") == ()
    assert EstimateCache(registry).get("a") == ()


def taken(report: dict[str, Any]) -> dict[tuple[int, str], list[tuple[str, int, int]]]:
    """Return the memory by context length and type of KV cache, device for device."""
    parts = ("name", "kv_cache_bytes", "total_bytes")
    return {
        (row["context_length"], row["kv_cache_type"]): [
            tuple(device[part] for part in parts) for device in row["devices"]
        ]
        for row in report["models"]
    }


def use_llama_server(project: Project, behaviour: str, contexts: str) -> None:
    program = write_llama_server(project.path / "bin", behaviour)
    project.pytester.makeini(f"[pytest]\nlmstrix_llama_server = {program}\n")
    project.manifest(
        "[{id: tiny, engine: llama-server, source: tiny.gguf, context_limit: 8192,"
        f" contexts: {contexts}}}]"
    )


def test_the_users_own_llama_server_estimates_its_models(fitted: Project) -> None:
    embedded = taken(as_json(fitted, "-k", "tiny"))
    use_llama_server(fitted, "", "[512]")
    report = as_json(fitted)
    assert {row["engine"] for row in report["models"]} == {"llama-server"}
    own = taken(report)
    common = own.keys() & embedded.keys()
    assert common >= {(512, "f16"), (512, "q8_0")}
    assert {each: own[each] for each in common} == {each: embedded[each] for each in common}


def test_its_gpu_decides_what_fits(fitted: Project) -> None:
    use_llama_server(fitted, "gpu", "[2048, 8192]")
    report = as_json(fitted)
    assert [each["name"] for each in report["machine"]["devices"]] == ["Vulkan0"]
    rows = [row for row in report["models"] if row["kv_cache_type"] == "f16"]
    # Of 8,000 MiB, 4,100 are taken by weights and compute buffers.
    assert [(row["context_length"], row["fits"]) for row in rows] == [
        (2048, True), (3840, True), (8192, False),
    ]  # fmt: skip
    assert rows[0]["devices"][0]["free_bytes"] == 8000 * 1024**2


def test_what_does_not_fit_its_gpu_is_not_loaded(fitted: Project) -> None:
    use_llama_server(fitted, "gpu", "[2048, 8192]")
    result = fitted.run("-m", "fast", "--lmstrix-skip-unfit", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*does not fit: needs 12,292 MiB of Vulkan0, 8,000 MiB free*"])


def test_a_llama_server_without_a_dry_run_is_named(fitted: Project) -> None:
    use_llama_server(fitted, "old", "[512]")
    result = fitted.run("--lmstrix-fit")
    result.stdout.fnmatch_lines(["*this llama-server does not know --fit*its dry run*"])
