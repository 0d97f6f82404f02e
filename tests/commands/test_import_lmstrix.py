"""`--lmstrix-import`: models and results of lmstrix, which never count as shown here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.commands.import_lmstrix import MAX_FILE_BYTES, Database, read_database
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.manifest.read import read_manifest
from pytest_lmstrix.registry.history.earlier import History
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.registry.results import a_result

GOLDEN = Path(__file__).parent / "golden"
ANCESTOR = os.environ.get("LMSTRIX_TEST_ANCESTOR")
GOOD = {
    "id": "m", "path": "m.gguf", "size_bytes": 1000, "ctx_in": 8192, "tested_max_context": 4096,
    "context_test_status": "completed", "context_test_date": "2026-01-02T03:04:05+00:00",
}  # fmt: skip


@pytest.fixture
def no_manifest(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("COLUMNS", raising=False)
    (project.path / "models.yaml").unlink()
    return project


@pytest.fixture
def far_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is two hours before UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process cannot be changed here")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX2")
        time.tzset()
        yield
    time.tzset()


def write(path: Path, *models: dict[str, Any]) -> Path:
    file = path / "lmstrix.json"
    file.write_text(json.dumps({"llms": {f"key{n}": each for n, each in enumerate(models)}}))
    return file


def read_one(tmp_path: Path, **fields: Any) -> Database:
    return read_database(write(tmp_path, {**GOOD, **fields}))


def left_out(database: Database) -> dict[str, tuple[str, str]]:
    return {each.key: (each.value, each.reason) for each in database.left_out}


def test_a_database_of_the_first_version_is_imported(no_manifest: Project) -> None:
    result = no_manifest.run(f"--lmstrix-import={GOLDEN / 'lmstrix-1.0.52.json'}")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([
        "3 new models in models.yaml, 3 imported results in reports/registry.jsonl, 0 left out",
    ])  # fmt: skip
    assert read_manifest(no_manifest.path / "models.yaml") == (
        Model(id="qwen2.5-7b-instruct", engine="lmstudio", context_limit=131_072,
              size_bytes=4_683_073_536, capabilities=("tools",)),
        Model(id="big-70b", engine="lmstudio", context_limit=32_768, size_bytes=39_700_000_000),
        Model(id="gemma-3-4b", engine="lmstudio", context_limit=8_192, size_bytes=4_130_401_280,
              capabilities=("vision",)),
    )  # fmt: skip
    good, bad, other = no_manifest.results
    assert all(each.imported for each in (good, bad, other))
    assert (good.context_length, good.verdict, good.outcome) == (60_000, Verdict.OK, "passed")
    assert good.notes == bad.notes == ("loaded up to 80,000 tokens",)
    assert (bad.context_length, bad.verdict) == (80_000, Verdict.ENGINE_ERROR)
    assert bad.detail == "lmstrix recorded no reason"
    assert (other.context_length, other.verdict) == (30_000, Verdict.OUT_OF_MEMORY)
    assert other.detail == "Failed at minimum context 30000: CUDA out of memory"


def test_a_database_of_the_last_version_is_imported(no_manifest: Project) -> None:
    result = no_manifest.run(f"--lmstrix-import={GOLDEN / 'lmstrix-1.0.84.json'}")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([
        "3 new models in models.yaml, 1 imported result in reports/registry.jsonl, 4 left out",
        "",
        "not imported",
        "tiny/tiny-4k.gguf *tested_max_context *31744 *above the declared 4,096",
        "tiny/tiny-4k.gguf *ttft_seconds *0.05 *there is no size that it belongs to",
        "tiny/tiny-4k.gguf *tps *210.0 *there is no size that it belongs to",
        'old/broken.gguf *context_test_status *"failed" *lmstrix recorded no size',
    ], consecutive=True)  # fmt: skip
    (good,) = no_manifest.results
    assert (good.model, good.context_length, good.verdict) == ("qwen3-4b", 31_744, Verdict.OK)
    assert (good.ttft_seconds, good.decode_tokens_per_second) == (0.412, 57.25)


@pytest.mark.usefixtures("far_zone")
def test_dates_without_a_zone_are_local_time(tmp_path: Path) -> None:
    (result,) = read_one(tmp_path, context_test_date="2026-02-11T09:30:00").results
    assert result.at == datetime(2026, 2, 11, 11, 30, tzinfo=UTC)


def test_importing_again_adds_nothing(no_manifest: Project) -> None:
    option = f"--lmstrix-import={GOLDEN / 'lmstrix-1.0.52.json'}"
    no_manifest.run(option)
    paths = [no_manifest.path / "models.yaml", no_manifest.path / "reports" / "registry.jsonl"]
    before = [path.read_bytes() for path in paths]
    result = no_manifest.run(option)
    result.stdout.fnmatch_lines(["0 new models in models.yaml, 0 imported results *, 0 left out"])
    assert [path.read_bytes() for path in paths] == before


def test_what_the_manifest_has_stays_byte_for_byte(project: Project) -> None:
    project.manifest("\n- {id: m, context_limit: 5}   # mine")
    before = (project.path / "models.yaml").read_bytes()
    file = write(project.path, GOOD, {**GOOD, "id": "other"})
    project.run("--lmstrix-import", str(file))
    after = (project.path / "models.yaml").read_bytes()
    assert after.startswith(before)
    assert b"other" in after[len(before) :]
    assert {each.model for each in project.results} == {"m", "other"}


def test_imported_results_are_not_cached_results(project: Project) -> None:
    project.manifest("[{id: tiny, engine: fake, contexts: [512]}]")
    same = {**GOOD, "id": "tiny", "tested_max_context": 512}
    project.run("--lmstrix-import", str(write(project.path, same)))
    line = project.path / "reports" / "registry.jsonl"
    # As if an engine of that name had been imported: the strongest form of the same result.
    line.write_text(line.read_text().replace('"lmstudio"', '"fake"'))
    assert project.ids("--lmstrix") == ["models.yaml::test_full[tiny-512]"]
    project.run("--lmstrix").assert_outcomes(passed=1)


def test_imported_results_verify_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl")
    registry.append_many([
        a_result(8_192, imported=True, decode_tokens_per_second=50.0),
        a_result(4_096, "out_of_memory", imported=True),
    ])  # fmt: skip
    assert registry.verified_context("m") is None
    assert registry.known("m") == ()
    status = registry.status("m")
    assert status is not None
    assert (status.status, status.imported, status.smallest_bad) == ("untested", 2, None)
    assert status.decode_tokens_per_second is None
    assert registry.status("m", engine="llamacpp") is None
    assert [each.model for each in registry.statuses()] == ["m"]


def test_imported_failures_do_not_lower_what_is_verified(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl")
    registry.append_many([a_result(8_192), a_result(4_096, "crashed", imported=True)])
    status = registry.status("m")
    assert status is not None
    assert (status.status, status.verified_context, status.imported) == ("completed", 8_192, 1)


def test_imported_results_are_no_baseline_of_regressions() -> None:
    history = History()
    history.add(a_result(8_192, imported=True, decode_tokens_per_second=50.0))
    assert history.of("m") == []


def test_the_list_shows_imported_results_as_such(no_manifest: Project) -> None:
    no_manifest.run(f"--lmstrix-import={GOLDEN / 'lmstrix-1.0.52.json'}")
    lines = no_manifest.run("--lmstrix-list=id", "-v").stdout
    lines.fnmatch_lines([
        "big-70b * - *imported *",
        "gemma-3-4b * untested *",
        "qwen2.5-7b-instruct * - * - *imported *",
        "*full *30,000 *out_of_memory *imported: Failed at minimum context 30000: *",
        "*full *60,000 *ok *imported",
    ])  # fmt: skip
    listed = json.loads(no_manifest.run("--lmstrix-list", "--lmstrix-format=json").stdout.str())
    found = {each["id"]: each for each in listed["models"]}
    assert found["big-70b"]["status"] == "imported"
    assert found["qwen2.5-7b-instruct"]["imported"] == 2
    assert found["qwen2.5-7b-instruct"]["verified_context"] is None


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "is not valid JSON: *"),
        (b'{"llms": {', "is not valid JSON: *"),
        (b"\xff\xfe{}", "is not valid JSON: *"),
        (b"[" * 100_000, "is not valid JSON: nested too deeply"),
        (b"[]", "is not a database of lmstrix: it needs an object 'llms'"),
        (b"{}", "is not a database of lmstrix: it needs an object 'llms'"),
        (b'{"llms": []}', "is not a database of lmstrix: it needs an object 'llms'"),
    ],
    ids=["empty", "torn", "binary", "deep", "list", "no-llms", "llms-list"],
)
def test_what_is_not_a_database_is_a_usage_error(
    project: Project, contents: bytes, reason: str
) -> None:
    before = (project.path / "models.yaml").read_bytes()
    (project.path / "lmstrix.json").write_bytes(contents)
    result = project.run("--lmstrix-import=lmstrix.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --lmstrix-import: lmstrix.json {reason}"])
    assert (project.path / "models.yaml").read_bytes() == before
    assert not (project.path / "reports").exists()


@pytest.mark.parametrize(("name", "reason"), [("absent", "cannot be read"), (".", "is not a file")])
def test_what_is_not_a_file_is_a_usage_error(project: Project, name: str, reason: str) -> None:
    result = project.run("--lmstrix-import", name)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --lmstrix-import: {name} {reason}*"])


def test_a_file_elsewhere_after_a_blank_is_a_usage_error(project: Project) -> None:
    result = project.run("--lmstrix-import", str(GOLDEN / "lmstrix-1.0.52.json"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lmstrix-import: write --lmstrix-import=FILE; *"])


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "lmstrix.json"
    with file.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match="is larger than"):
        read_database(file)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_database(file).results) == 1


@pytest.mark.parametrize(
    ("key", "value", "shown", "reason"),
    [
        ("ctx_in", "8192", '"8192"', "not a whole number from 1 to 2,147,483,647"),
        ("ctx_in", 0, "0", "not a whole number from 1 to 2,147,483,647"),
        ("ctx_in", True, "true", "not a whole number from 1 to 2,147,483,647"),
        ("last_known_bad_context", -1, "-1", "not a whole number from 1 to 2,147,483,647"),
        ("size_bytes", 2**63, str(2**63), f"not a whole number from 1 to {2**63 - 1:,}"),
        ("tps", float("nan"), "NaN", "not a number from 0 to 1,000,000,000"),
        ("tps", True, "true", "not a number from 0 to 1,000,000,000"),
        ("ttft_seconds", float("inf"), "Infinity", "not a number from 0 to 10,000,000"),
        ("has_tools", "yes", '"yes"', "not true or false"),
        ("failed", 1, "1", "not true or false"),
        ("capabilities", ["vision"], '["vision"]', "not an object"),
        ("context_test_status", [], "[]",
         "not one of untested, testing, completed, failed"),
        ("colour", "red", '"red"', "not a key of lmstrix"),
    ],
)  # fmt: skip
def test_a_single_bad_value_is_listed_and_the_rest_imported(
    tmp_path: Path, key: str, value: object, shown: str, reason: str
) -> None:
    database = read_one(tmp_path, **{key: value})
    assert left_out(database) == {key: (shown, reason)}
    assert [each.context_length for each in database.results] == [4_096]


@pytest.mark.parametrize("date", [None, "yesterday", 5, "0001-01-01T00:00:00+14:00"])
def test_results_without_a_valid_date_are_left_out(tmp_path: Path, date: object) -> None:
    database = read_one(tmp_path, context_test_date=date)
    assert database.results == ()
    assert [each.id for each in database.models] == ["m"]
    assert left_out(database)["tested_max_context"] == ("4096", "a result needs a date")


def test_speeds_of_an_unknown_size_are_left_out(tmp_path: Path) -> None:
    database = read_one(tmp_path, last_known_good_context=2_048, tps=9.5)
    assert [each.context_length for each in database.results] == [2_048, 4_096]
    assert [each.decode_tokens_per_second for each in database.results] == [None, None]
    assert left_out(database) == {
        "tps": ("9.5", "measured at 2,048 or 4,096 tokens: not recorded which")
    }


def test_numbers_of_thousands_of_digits_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "lmstrix.json"
    file.write_text('{"llms": {"k": {"id": "m", "ctx_in": %s}}}' % ("9" * 10_000))
    (bad,) = read_database(file).left_out
    assert (bad.model, bad.key) == ("k", "ctx_in")
    assert len(bad.value) <= 60


def test_an_entry_that_is_not_an_object_is_listed(tmp_path: Path) -> None:
    (bad,) = read_database(write(tmp_path, [1])).left_out  # type: ignore[arg-type]
    assert (bad.model, bad.value, bad.reason) == ("key0", "[1]", "not an object")


def test_the_first_of_two_models_with_one_id_counts(tmp_path: Path) -> None:
    database = read_database(write(tmp_path, GOOD, {**GOOD, "tested_max_context": 8_000}))
    assert [each.context_length for each in database.results] == [4_096]
    assert left_out(database) == {"id": ('"m"', "another entry has this id; the first one counts")}


def test_the_first_of_two_equal_keys_counts(tmp_path: Path) -> None:
    file = tmp_path / "lmstrix.json"
    file.write_text('{"llms": {"k": {"ctx_in": 1, "ctx_in": 2}, "k": {"id": "other"}}}')
    database = read_database(file)
    assert [(each.id, each.context_limit) for each in database.models] == [("k", 1)]
    assert left_out(database) == {
        "llms": ("", "given twice; the first one counts"),
        "ctx_in": ("", "given twice; the first one counts"),
    }


@pytest.mark.parametrize(
    "id_", ["", 7, "a\nb", "\x1b[31mred", "\u202eevil", "\ud800", "x" * 100_000]
)
def test_hostile_ids_are_listed_and_never_written(no_manifest: Project, id_: object) -> None:
    file = write(no_manifest.path, {**GOOD, "id": id_}, {**GOOD, "id": "fine"})
    result = no_manifest.run("--lmstrix-import", str(file))
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["1 new model in *, 1 imported result in *, 1 left out"])
    assert "\x1b" not in result.stdout.str()
    assert [each.model for each in no_manifest.results] == ["fine"]


def test_an_invalid_manifest_is_a_usage_error(project: Project) -> None:
    project.manifest("5")
    result = project.run("--lmstrix-import", str(write(project.path, GOOD)))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not (project.path / "reports").exists()


WRITER = """
import inspect, sys
from datetime import datetime
from pathlib import Path
from lmstrix.core.models import ContextTestStatus, Model, ModelRegistry

registry = ModelRegistry(Path(sys.argv[1]))
name = "model_id" if "model_id" in inspect.signature(Model).parameters else "id"
model = Model(**{name: "real"}, path="org/real.gguf", size_bytes=1000, ctx_in=65536, has_tools=True)
model.tested_max_context = model.last_known_good_context = 40000
model.last_known_bad_context = 60000
model.context_test_status = ContextTestStatus.COMPLETED
model.context_test_date = datetime(2026, 2, 3, 4, 5, 6)
registry.update_model("org/real.gguf", model)
"""


@pytest.mark.skipif(not ANCESTOR, reason="LMSTRIX_TEST_ANCESTOR names no Python with lmstrix")
def test_a_database_that_lmstrix_itself_wrote_is_imported(tmp_path: Path) -> None:
    assert ANCESTOR
    home = tmp_path / "home"
    studio = home / ".cache" / "lm-studio"
    studio.mkdir(parents=True)
    (home / ".lmstudio-home-pointer").write_text(str(studio))
    file = tmp_path / "lmstrix.json"
    environment = {**os.environ, "HOME": str(home), "USERPROFILE": str(home)}
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [ANCESTOR, "-c", WRITER, str(file)], env=environment, cwd=tmp_path, check=True, timeout=120
    )
    database = read_database(file)
    assert database.left_out == ()
    assert database.models == (
        Model(id="real", engine="lmstudio", context_limit=65_536, size_bytes=1_000,
              capabilities=("tools",)),
    )  # fmt: skip
    assert [(each.context_length, each.verdict, each.at) for each in database.results] == [
        (40_000, Verdict.OK, datetime(2026, 2, 3, 4, 5, 6).astimezone(UTC)),
        (60_000, Verdict.ENGINE_ERROR, datetime(2026, 2, 3, 4, 5, 6).astimezone(UTC)),
    ]
