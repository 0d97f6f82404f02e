"""`--lmstrix-list`: models and their results, without any engine."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pytest_lmstrix.commands.run  # noqa: F401 - once: pytester forgets what a run imports
from pytest_lmstrix.commands.list import LIST_SCHEMA
from pytest_lmstrix.core.types import Result
from pytest_lmstrix.options import SORT_KEYS
from pytest_lmstrix.registry.store import Registry
from tests.end_to_end.project import Project
from tests.registry.results import a_result

MODELS = """
  - {id: beta, size_bytes: 3_000_000_000, context_limit: 8192, tags: [nightly]}
  - {id: alpha, engine: lmstudio, size_bytes: 93_000_000, context_limit: 32768}
  - {id: gamma, context_limit: 1000}
  - {id: vectors, type: embedding}
"""
KEYS = {
    "architecture", "capabilities", "context_limit", "decode_tokens_per_second", "engine",
    "fingerprint", "id", "largest_good", "last_tested", "load_seconds", "quantization",
    "size_bytes", "smallest_bad", "smallest_bad_verdict", "status", "tags", "ttft_seconds", "type",
    "verdict", "verified_check", "verified_context", "peak_memory_bytes", "estimated_memory_bytes",
    "imported", "host", "tiers", "capability_proofs",
    "variant_of",
    "since",
}  # fmt: skip


def a_day(day: int) -> datetime:
    return datetime(2026, 3, day, 12, 30, tzinfo=UTC)


def record(project: Project, *results: Result) -> None:
    Registry(project.path / "reports" / "registry.jsonl").append_many(results)


@pytest.fixture
def listed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Two tested models, an untested one and an embedding model."""
    monkeypatch.delenv("COLUMNS", raising=False)
    project.manifest(MODELS)
    fast = {"ttft_seconds": 0.25, "decode_tokens_per_second": 80.0,
            "estimated_memory_bytes": 3_500_000_000}  # fmt: skip
    slow = {"ttft_seconds": 2.5, "decode_tokens_per_second": 9.5}
    record(
        project,
        a_result(4000, model="beta", engine="fake", at=a_day(1), **fast),
        a_result(8000, "out_of_memory", model="beta", engine="fake", at=a_day(2), detail="no room"),
        a_result(30_000, model="alpha", at=a_day(3), **slow),
    )
    return project


def test_the_list_is_a_table(listed: Project) -> None:
    result = listed.run("--lmstrix-list")
    assert result.ret == pytest.ExitCode.OK
    assert result.outlines == [
        "model    engine      size  estimate  declared  verified  first bad  status  "
        "   since               TTFT  tokens/s      tested (UTC)",
        "vectors  fake           -         -         -         -          -  embeddin"
        "g  -                      -         -                 -",
        "gamma    fake           -         -     1,000         -          -  untested"
        "   -                      -         -                 -",
        "alpha    lmstudio   93 MB         -    32,768    30,000          -  complete"
        "d  works 2026-03-03  2.50 s       9.5  2026-03-03 12:30",
        "beta     fake      3.0 GB    3.5 GB     8,192     4,000      8,000  complete"
        "d  works 2026-03-01  0.25 s      80.0  2026-03-02 12:30",
    ]
    assert result.errlines == []
    assert listed.engine_log == []


ORDERS = {
    "smart": "vectors gamma alpha beta",
    "smartd": "beta alpha gamma vectors",
    "id": "alpha beta gamma vectors",
    "idd": "vectors gamma beta alpha",
    "size": "alpha beta gamma vectors",
    "sized": "beta alpha gamma vectors",
    "estimate": "beta alpha gamma vectors",
    "estimated": "beta alpha gamma vectors",
    "declared": "gamma beta alpha vectors",
    "declaredd": "alpha beta gamma vectors",
    "ctx": "beta alpha gamma vectors",
    "ctxd": "alpha beta gamma vectors",
    "ttft": "beta alpha gamma vectors",
    "ttftd": "alpha beta gamma vectors",
    "tps": "alpha beta gamma vectors",
    "tpsd": "beta alpha gamma vectors",
    "status": "beta alpha vectors gamma",
    "statusd": "gamma vectors beta alpha",
    "tested": "beta alpha gamma vectors",
    "testedd": "alpha beta gamma vectors",
}


@pytest.mark.parametrize("key", ORDERS)
def test_sort_keys_order_the_list_with_unknown_values_last_or_0_for_smart(
    listed: Project, key: str
) -> None:
    assert listed.run(f"--lmstrix-list={key}", "-q").outlines == ORDERS[key].split()


@pytest.mark.parametrize("key", ["ctx", "ctxd", "tps", "testedd", "statusd"])
def test_the_same_sort_keys_order_a_run(listed: Project, key: str) -> None:
    listed.engine(beta="", gamma="")
    listed.manifest("[{id: gamma, contexts: [9]}, {id: beta, contexts: [9]}]")
    ids = listed.ids("--lmstrix", "--all", f"--lmstrix-sort={key}")
    run = [each.partition("[")[2].removesuffix("-9]") for each in ids]
    assert run == [each for each in ORDERS[key].split() if each in run]
    assert len(run) == 2


@pytest.mark.parametrize("key", ["d", "i", "smar", "tpsdd", "declare", "", "ID"])
def test_sort_keys_must_match_exactly(listed: Project, key: str) -> None:
    result = listed.run(f"--lmstrix-list={key}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, result.errlines)
    assert line.startswith(
        f"ERROR: --lmstrix-list: '{key}' is not a valid key; choose from smart, id, size, estimate"
    )


def test_a_model_that_fails_at_any_size_is_listed_so(listed: Project) -> None:
    notes = {"notes": ("any size",), "model": "gamma", "engine": "fake"}
    record(listed, a_result(900, "out_of_memory", **notes))
    lines = [line.split()[:8] for line in listed.run("--lmstrix-list").outlines]
    assert ["gamma", "fake", "-", "-", "1,000", "-", "any", "size"] in lines
    record(listed, a_result(900, model="gamma", engine="fake"))
    lines = [line.split()[:8] for line in listed.run("--lmstrix-list").outlines]
    assert ["gamma", "fake", "-", "-", "1,000", "900", "-", "completed"] in lines


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("night", "beta"),
        ("lmstudio", "alpha"),
        ("fake and not a", ""),
        ("(alpha or gamma) and fake", "gamma"),
    ],
)
def test_k_selects_by_id_engine_and_tag(listed: Project, expression: str, expected: str) -> None:
    assert listed.run("--lmstrix-list", "-q", "-k", expression).outlines == expected.split()


def test_an_invalid_expression_is_a_usage_error(listed: Project) -> None:
    result = listed.run("--lmstrix-list", "-k", "a b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: -k: 'a b' is not a valid expression: use words, and, or, not*"]
    )


def objects(project: Project, *args: str) -> list[dict[str, Any]]:
    result = project.run("--lmstrix-list", "--lmstrix-format=json", *args)
    assert result.ret == pytest.ExitCode.OK
    listing = json.loads(result.stdout.str())
    assert listing.pop("schema") == LIST_SCHEMA == 1
    (models,) = listing.values()
    return list(models)


def test_json_has_stable_keys(listed: Project) -> None:
    models = {model["id"]: model for model in objects(listed)}
    assert all(set(model) == KEYS for model in models.values())
    since = models["beta"].pop("since")
    assert (since["state"], since["began"]["at"]) == ("works", "2026-03-01T12:30:00Z")
    assert models["beta"] == dict.fromkeys(KEYS - {"since"}) | {
        "id": "beta",
        "engine": "fake",
        "type": "llm",
        "tags": ["nightly"],
        "capabilities": [],
        "size_bytes": 3_000_000_000,
        "context_limit": 8192,
        "status": "completed",
        "fingerprint": "size:1",
        "verified_context": 4000,
        "verified_check": "full",
        "largest_good": 4000,
        "smallest_bad": 8000,
        "smallest_bad_verdict": "out_of_memory",
        "verdict": "out_of_memory",
        "last_tested": "2026-03-02T12:30:00Z",
        "ttft_seconds": 0.25,
        "estimated_memory_bytes": 3_500_000_000,
        "decode_tokens_per_second": 80.0,
        "imported": 0,
        "capability_proofs": {},
    }
    assert (models["vectors"]["type"], models["vectors"]["status"]) == ("embedding",) * 2
    assert models["gamma"]["status"] == "untested"
    assert models["gamma"]["verified_context"] is None


def test_json_keys_are_documented() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "commands.md").read_text(encoding="utf-8")
    assert {f"`{key}`" for key in KEYS | set(SORT_KEYS)} <= set(re.findall(r"`\w+`", text))


def test_json_is_complete_with_any_other_option(listed: Project) -> None:
    assert objects(listed, "-q") == objects(listed)
    (beta,) = objects(listed, "-v", "-k", "beta")
    assert set(beta) == KEYS | {"history"}
    past = [msgspec.convert(line, Result) for line in beta["history"]]
    assert [(line.context_length, line.detail) for line in past] == [(4000, ""), (8000, "no room")]


def test_markdown(listed: Project) -> None:
    listed.manifest("[{id: 'a|b*', context_limit: 9}]")
    assert listed.run("--lmstrix-list", "--lmstrix-format=md").outlines == [
        "| model | engine | size | estimate | declared | verified | first bad | status | since"
        " | TTFT | tokens/s | tested (UTC) |",
        "| " + "--- | " * 11 + "--- |",
        "| a\\|b\\* | fake | - | - | 9 | - | - | untested | - | - | - | - |",
    ]


def test_markdown_states_that_the_history_is_omitted(listed: Project) -> None:
    plain = listed.run("--lmstrix-list", "--lmstrix-format=md")
    verbose = listed.run("--lmstrix-list", "--lmstrix-format=md", "-v")
    assert verbose.outlines == plain.outlines
    assert plain.errlines == []
    verbose.stderr.fnmatch_lines(["-v: Markdown has no history; --lmstrix-format=json has it"])


def test_v_shows_the_newest_history_vv_all_of_it(listed: Project) -> None:
    result = listed.run("--lmstrix-list", "-v", "-k", "beta")
    assert result.outlines[2:] == [
        "",
        "beta",
        "  2026-03-01 12:30  full  4,000  ok             80.0",
        "  2026-03-02 12:30  full  8,000  out_of_memory     -  no room",
    ]
    record(listed, *(a_result(n, model="gamma", engine="fake") for n in range(1, 13)))
    sizes = [
        [line.split()[3] for line in listed.run("--lmstrix-list", v, "-k", "gamma").outlines[4:]]
        for v in ("-v", "-vv")
    ]
    assert sizes == [[str(n) for n in range(3, 13)], [str(n) for n in range(1, 13)]]


@pytest.mark.parametrize("width", [40, 60, 80, 110])
def test_output_fits_the_terminal(
    listed: Project, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("NO_COLOR", raising=False)
    for key in ("smart", "tps", "testedd"):
        lines = listed.run(f"--lmstrix-list={key}", "--color=yes").outlines
        assert len(lines) == 5
        plain = [line.replace("\x1b[32m", "").replace("\x1b[0m", "") for line in lines]
        assert max(map(len, plain)) <= width
        assert {"smart": "model", "tps": "tokens/s", "testedd": "tested (UTC)"}[key] in lines[0]


def test_colour_is_used_only_when_enabled(listed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[32mcompleted" in listed.run("--lmstrix-list", "--color=yes").stdout.str()
    assert "\x1b" not in listed.run("--lmstrix-list").stdout.str()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in listed.run("--lmstrix-list").stdout.str()


def test_results_with_other_settings_weights_or_engines_are_ignored(listed: Project) -> None:
    listed.manifest(
        "\n  - {id: beta, load: {kv_cache_type: q8_0}}"
        "\n  - {id: alpha}"
        f"\n  - {{id: hashed, sha256: '{'a' * 64}'}}"
    )
    record(listed, a_result(model="hashed", engine="fake", fingerprint=f"sha256:{'b' * 64}"))
    assert {each["id"]: each["status"] for each in objects(listed)} == {
        "beta": "untested",
        "alpha": "untested",
        "hashed": "untested",
    }
    record(listed, a_result(model="hashed", engine="fake", fingerprint=f"sha256:{'a' * 64}"))
    assert objects(listed, "-k", "hashed")[0]["status"] == "completed"


def test_registry_text_is_sanitized_for_the_terminal(listed: Project) -> None:
    hostile = "\x1b[2J\x9b31m\u202eevil\n\ttext"
    record(listed, a_result(9, "crashed", model="gamma", engine="fake", detail=hostile))
    for form in ("table", "json", "md"):
        out = listed.run("--lmstrix-list", "-v", f"--lmstrix-format={form}").stdout.str()
        assert not {"\x1b", "\x9b", "\u202e", "\t"} & set(out)
    assert objects(listed, "-v", "-k", "gamma")[0]["history"][0]["detail"] == hostile


def test_damaged_lines_are_reported_and_the_others_listed(listed: Project) -> None:
    with (listed.path / "reports" / "registry.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    result = listed.run("--lmstrix-list", "-q", "-k", "beta")
    assert (result.ret, result.outlines) == (pytest.ExitCode.OK, ["beta"])
    result.stderr.fnmatch_lines(["*registry.jsonl: 1 damaged line left out; see --lmstrix-health"])


def test_damaged_lines_that_cannot_be_copied_are_reported_too(listed: Project) -> None:
    reports = listed.path / "reports"
    (reports / "registry.corrupt-20260101-000000-000000.jsonl").mkdir()
    with (reports / "registry.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    result = listed.run("--lmstrix-list", "-q", "-k", "beta")
    assert (result.ret, result.outlines) == (pytest.ExitCode.OK, ["beta"])
    result.stderr.fnmatch_lines(["*registry.jsonl: 1 damaged line left out; see --lmstrix-health"])


def test_an_unreadable_registry_is_a_one_line_error(listed: Project) -> None:
    path = listed.path / "reports" / "registry.jsonl"
    path.unlink()
    path.mkdir()
    result = listed.run("--lmstrix-list")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, result.errlines)
    assert line.startswith("ERROR: ")
    assert "is not a file" in line


def test_a_missing_manifest_suggests_a_scan(project: Project) -> None:
    (project.path / "models.yaml").unlink()
    result = project.run("--lmstrix-list")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *models.yaml: no such file; *--lmstrix-scan*"])


def test_a_manifest_error_names_its_line(project: Project) -> None:
    project.manifest("\n  - id: tiny\n    contexst: [512]")
    result = project.run("--lmstrix-list")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: models.yaml:4: model 'tiny': *contexst*contexts*"])


@pytest.mark.parametrize(
    "args", [("-p", "no:html"), ("-p", "no:xdist"), ("-n", "2"), ("--lmstrix", "--all")]
)  # fmt: skip
def test_other_options_and_tests_are_ignored(listed: Project, args: tuple[str, ...]) -> None:
    listed.pytester.makepyfile("assert False, 'must not be collected'")
    if "-n" in args:
        listed.pytester.makeini("[pytest]\naddopts = -n 2")
        args = ()
    result = listed.run_apart("--lmstrix-list", "-q", *args)
    assert (result.ret, result.outlines) == (0, ORDERS["smart"].split())
    assert result.errlines == []
    assert listed.engine_log == []


def test_a_missing_terminal_plugin_is_reported(listed: Project) -> None:
    result = listed.run("--lmstrix-list", "-p", "no:terminal")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lmstrix-list needs pytest's own plugin 'terminal'"])


def test_two_commands_are_a_usage_error(listed: Project) -> None:
    result = listed.run("--lmstrix-list", "--lmstrix-health")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lmstrix-list and --lmstrix-health cannot be combined*"])


def test_help_takes_precedence_and_lists_every_command(project: Project) -> None:
    shown = project.run("--lmstrix-list", "--help").stdout.str()
    for option in ("--lmstrix-scan", "--lmstrix-list=[KEY]", "--lmstrix-health",
                   "--lmstrix-restore=[BACKUP]", "--lmstrix-import=FILE",
                   "lmstrix_gguf_dirs"):  # fmt: skip
        assert option in shown
