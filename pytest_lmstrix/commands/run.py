"""Commands that run instead of tests, one function for each of `options.COMMANDS`."""

from __future__ import annotations

import gc
import sys
from contextlib import closing
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import pytest

from pytest_lmstrix.commands import export, history, scan
from pytest_lmstrix.commands import list as listing
from pytest_lmstrix.commands.keyword import matcher
from pytest_lmstrix.commands.output import Output, shown_path
from pytest_lmstrix.core.formatting import NOTHING, count_of, file_size, tokens
from pytest_lmstrix.core.sanitize import one_line
from pytest_lmstrix.core.table import TableCell, prose, table
from pytest_lmstrix.core.types import Model
from pytest_lmstrix.hookspecs import engine_options, registered_engines
from pytest_lmstrix.manifest.append import append_models
from pytest_lmstrix.manifest.read import (
    ManifestError,
    ManifestNotFound,
    read_manifest,
    whole_manifest,
)
from pytest_lmstrix.options import (
    Settings,
    margin_of,
    read_settings,
    run_hosts,
    sort_key,
    with_hosts,
)  # fmt: skip
from pytest_lmstrix.plan.build import manifest_usage_error
from pytest_lmstrix.registry.health import check_health
from pytest_lmstrix.registry.store import Registry, RegistryError
from pytest_lmstrix.reports.overview.variants import variants_table
from pytest_lmstrix.weights.source import with_home

HISTORY = 10  # results of a model listed by `-v`; `-vv` lists all
LISTED_IMPORT = 500  # values that an import lists as left out
_SEVERITIES = {"error": "red", "warning": "yellow", "info": ""}
_SCAN_HEADINGS = ("model", "engine", "type", "size", "quantization", "architecture", "declared",
                  "capabilities")  # fmt: skip
_SCAN_LEFT = {*_SCAN_HEADINGS} - {"model", "size", "declared"}
_SCAN_EXPENDABLE = ("capabilities", "architecture", "type", "size", "declared", "engine",
                    "quantization")  # fmt: skip


def run(config: pytest.Config, command: str) -> int:
    """Run `command`, one of `options.COMMANDS`, and return pytest's exit code.

    Raises:
        pytest.UsageError: An option or the manifest is invalid, or a file cannot be used.
    """
    if not config.pluginmanager.has_plugin("terminal"):
        raise pytest.UsageError(f"--lmstrix-{command} needs pytest's own plugin 'terminal'")
    if config.option.lmstrix_format == "html" and command != "history":
        raise pytest.UsageError("--lmstrix-format=html is for --lmstrix-history only")
    settings = read_settings(config)
    work = {"scan": _scan, "list": _list, "fit": _fit, "history": _history, "accept": _accept,
            "health": _health, "restore": _restore, "export": _export,
            "import": _import}[command]  # fmt: skip
    collected = gc.isenabled()
    gc.disable()  # all objects live to the end; collecting garbage would take a fifth more time
    try:
        return work(config, settings, Output(config))
    except ManifestError as error:
        raise manifest_usage_error(error, settings.models) from None
    except RegistryError as error:
        raise pytest.UsageError(str(error)) from None
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
    finally:
        if collected:
            gc.enable()


def _list(config: pytest.Config, settings: Settings, screen: Output) -> int:
    option = config.option
    key = sort_key(option.lmstrix_list, "--lmstrix-list")
    models = read_manifest(settings.models, engine=settings.engine)
    registry = Registry(settings.registry)
    damaged = registry.load().damaged
    try:
        listed = listing.entries(models, registry, settings, key=key, keyword=option.keyword)
    except ValueError as error:
        raise pytest.UsageError(f"-k: {error}") from None
    past = None
    if option.verbose > 0:
        past = listing.history(listed, registry, HISTORY if option.verbose == 1 else None)
    if option.lmstrix_format == "json":
        screen.line(listing.as_json(listed, past))
    elif option.lmstrix_format == "md":
        screen.lines(listing.as_markdown(listed))
        if past is not None:
            print("-v: Markdown has no history; --lmstrix-format=json has it", file=sys.stderr)
    elif option.verbose < 0:
        screen.lines(listing.as_ids(listed))
    else:
        screen.lines(listing.as_table(listed, key=key, paint=screen.paint, width=screen.width))
        for comparison in listing.compared(listed):
            screen.line("")
            screen.lines(variants_table(comparison, paint=screen.paint, width=screen.width))
        screen.lines(listing.as_history(past or {}, paint=screen.paint, width=screen.width))
    if damaged:
        lines = count_of(len(damaged), "damaged line")
        print(f"{settings.registry}: {lines} left out; see --lmstrix-health", file=sys.stderr)
    return pytest.ExitCode.OK


def _history(config: pytest.Config, settings: Settings, screen: Output) -> int:
    asked = config.option.lmstrix_history
    registry = Registry(settings.registry)
    if config.option.lmstrix_format == "html":
        index = history.history_html(registry, settings.reports, asked or config.option.keyword)
        screen.line(shown_path(index, config))
        return pytest.ExitCode.OK
    found = history.histories(_asked(config, settings, asked, "history"), registry)
    if config.option.lmstrix_format == "json":
        screen.line(history.history_json(found))
    elif config.option.lmstrix_format == "md":
        screen.lines(history.history_markdown(found))
    else:
        screen.lines(history.history_text(found, paint=screen.paint, width=screen.width))
    return pytest.ExitCode.OK


def _accept(config: pytest.Config, settings: Settings, screen: Output) -> int:
    asked = config.option.lmstrix_accept
    registry = Registry(settings.registry)
    accepted = history.acceptances(_asked(config, settings, asked, "accept"), registry)
    registry.accept(accepted)
    for each in accepted:
        screen.line(f"accepted as it is: {one_line(each.model, 1_000)}")
    if not accepted:
        screen.line("no regression to accept")
    return pytest.ExitCode.OK


def _asked(config: pytest.Config, settings: Settings, model: str, command: str) -> list[Model]:
    """Return the models of the manifest that `model` (empty for all) and `-k` select."""
    models = read_manifest(settings.models, engine=settings.engine)
    ids = {each.id for each in models}
    if model and model not in ids:
        near = get_close_matches(model, ids, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "; --lmstrix-list shows the ids"
        raise pytest.UsageError(
            f"--lmstrix-{command}: '{model}' is not in {settings.models.name}{hint}"
        )
    try:
        wanted = matcher(config.option.keyword)
    except ValueError as error:
        raise pytest.UsageError(f"-k: {error}") from None
    return [
        each
        for each in models
        if model in ("", each.id) and wanted((each.id, each.engine, *each.tags))
    ]


def _fit(config: pytest.Config, settings: Settings, screen: Output) -> int:
    from pytest_lmstrix.commands import fit

    manifest = whole_manifest(settings.models, engine=settings.engine)
    try:
        report = fit.estimate_all(
            manifest.models,
            settings,
            hosts=run_hosts(settings, manifest.hosts),
            keyword=config.option.keyword,
            registered=tuple(registered_engines(config, engine_options(settings))),
            progress=print_progress,
        )
    except ValueError as error:
        raise pytest.UsageError(f"-k: {error}") from None
    if config.option.lmstrix_format == "json":
        screen.line(fit.fit_as_json(report))
        for remark in fit.remarks(report):
            print_progress(remark)
    elif config.option.lmstrix_format == "md":
        screen.lines(fit.fit_as_markdown(report))
    else:
        screen.lines(fit.fit_as_table(report, paint=screen.paint, width=screen.width))
    return pytest.ExitCode.OK


def print_progress(text: str) -> None:
    """Write a line to standard error, so that standard output holds the result alone."""
    print(one_line(text, 500), file=sys.stderr, flush=True)


def _health(config: pytest.Config, settings: Settings, screen: Output) -> int:
    models: tuple[Model, ...] | None = None
    rows: list[list[TableCell]] = []
    try:
        models = read_manifest(settings.models, engine=settings.engine)
    except ManifestError as error:
        rows.append([("warning", "yellow"), shown_path(settings.models, config),
                     f"not compared with models and their declared maxima: {error}"])  # fmt: skip
    limits = {model.id: model.context_limit for model in models or () if model.context_limit}
    report = check_health(
        settings.registry,
        models=None if models is None else {model.id for model in models},
        context_limits=limits,
    )
    for finding in report.findings:
        where = shown_path(finding.where, config)
        place = where if finding.line is None else f"{where}:{finding.line}"
        rows.append([(finding.severity, _SEVERITIES[finding.severity]), place, finding.text])
    screen.lines(prose(rows, paint=screen.paint, width=screen.width))
    screen.line(
        "healthy"
        if report.healthy
        else "not healthy: errors mean that results are lost, or cannot be added"
    )
    return pytest.ExitCode.OK if report.healthy else pytest.ExitCode.TESTS_FAILED


def _restore(config: pytest.Config, settings: Settings, screen: Output) -> int:
    restored = Registry(settings.registry).restore(config.option.lmstrix_restore or None)
    damaged = restored.contents.damaged
    held = count_of(restored.contents.results, "result")
    held += f", {count_of(damaged, 'damaged line')}" if damaged else ""
    screen.line(f"restored {shown_path(restored.backup, config)}: {held}")
    if restored.replaced is not None:
        screen.line(f"the former registry is kept as {shown_path(restored.replaced, config)}")
    return pytest.ExitCode.OK


def _export(config: pytest.Config, settings: Settings, screen: Output) -> int:
    option = config.option
    manifest = whole_manifest(settings.models, engine=settings.engine)
    settings = with_hosts(settings, run_hosts(settings, manifest.hosts))
    try:
        exporter = export.Exporter(
            option.lmstrix_export,
            listing.matching(manifest.models, option.keyword),
            Registry(settings.registry),
            settings.models.parent,
            check="deep" if option.lmstrix_check == "deep" else None,
            margin=margin_of(config),
            start=config.invocation_params.dir,
        )
        complete = exporter.run(
            screen.line, lambda text: print(text, file=sys.stderr),
            dry_run=option.lmstrix_export_dry_run,
            granted=partial(export.granted_by_lm_studio, settings),
        )  # fmt: skip
    except ValueError as error:
        raise pytest.UsageError(f"--lmstrix-export: {error}") from None
    return pytest.ExitCode.OK if complete else pytest.ExitCode.TESTS_FAILED


def _import(config: pytest.Config, settings: Settings, screen: Output) -> int:
    from pytest_lmstrix.commands import import_lmstrix

    folder = config.invocation_params.dir
    file = Path(folder, with_home(config.option.lmstrix_import))
    outside = not file.resolve().is_relative_to(folder.resolve())
    if outside and "--lmstrix-import" in config.invocation_params.args:
        raise pytest.UsageError(
            "--lmstrix-import: write --lmstrix-import=FILE; after a blank, pytest searches its"
            " configuration, and so the manifest, beside FILE"
        )
    try:
        found = import_lmstrix.read_database(file)
    except ValueError as error:
        name = shown_path(file, config)
        raise pytest.UsageError(f"--lmstrix-import: {name} {one_line(str(error), 500)}") from None
    appended = append_models(settings.models, found.models, engine=settings.engine)
    try:
        known = read_manifest(settings.models, engine=settings.engine)
    except ManifestNotFound:  # there was nothing to append
        known = ()
    registry = Registry(settings.registry)
    ids = {model.id for model in known}
    results = import_lmstrix.new_results(found.results, ids, registry.results())
    if results:
        registry.backup()
    registry.append_many(results)
    left_out = (*found.left_out, *import_lmstrix.invalid_in_manifest(found.models, ids))
    rows = [[each.model, each.key, each.value, each.reason] for each in left_out]
    if len(rows) > LISTED_IMPORT:
        rows[LISTED_IMPORT:] = [["", "", "", f"and {len(rows) - LISTED_IMPORT:,} more"]]
    screen.line(
        f"{count_of(len(appended), 'new model')} in {shown_path(settings.models, config)},"
        f" {count_of(len(results), 'imported result')} in"
        f" {shown_path(settings.registry, config)}, {len(left_out):,} left out"
    )
    screen.section("not imported", rows)
    return pytest.ExitCode.OK


def _scan(config: pytest.Config, settings: Settings, screen: Output) -> int:
    from pytest_lmstrix.commands.scan_fit import largest_contexts

    manifest = scan.manifest_so_far(settings.models, settings.engine)
    settings = with_hosts(settings, run_hosts(settings, manifest.hosts))
    options = engine_options(settings)
    scanner = scan.Scanner(registered_engines(config, options), options, settings.gguf_dirs)
    with closing(scanner):
        answers = list(scanner.ask([settings.engine, *(model.engine for model in manifest.models)]))
    screen.lines(prose([_answer_row(each) for each in answers], paint=screen.paint,
                       width=screen.width))  # fmt: skip
    found = scan.compare_with_manifest(manifest.models, answers, settings.models.parent)
    appended = append_models(settings.models, found.new, engine=settings.engine)
    shown = shown_path(settings.models, config)
    missing = "" if settings.models.exists() else ", which was not created"
    screen.line(f"\n{count_of(len(appended), 'new model')} in {shown}{missing}")
    if appended:
        rows = [_model_row(each) for each in appended]
        screen.lines(table(_SCAN_HEADINGS, rows, paint=screen.paint, width=screen.width,
                           left=_SCAN_LEFT, expendable=_SCAN_EXPENDABLE))  # fmt: skip
    new = None if config.option.verbose > 0 else appended
    largest = largest_contexts(answers, settings, new=new, progress=print_progress)
    screen.section("largest context that fits", list(largest))
    screen.section(f"gone: in {shown}, but no longer available",
                   [[each.engine, each.id] for each in found.gone])  # fmt: skip
    screen.section("embedding models: no size is tested", [[each] for each in found.embedding])
    left_out = [*found.left_out, *scan.not_recorded(found.new, appended)]
    screen.section("left out", [[each] for each in left_out])
    complete = scan.is_complete(answers, manifest.models, settings.hosts)
    return pytest.ExitCode.OK if complete else pytest.ExitCode.TESTS_FAILED


def _answer_row(answer: scan.Answer) -> list[TableCell]:
    if answer.trouble is None:
        return [answer.name, count_of(len(answer.models), "model")]
    return [answer.name, f"not asked: {answer.trouble}"]


def _model_row(model: Model) -> list[TableCell]:
    return [model.id, model.engine, model.type or "llm", file_size(model.size_bytes),
            model.quantization or NOTHING, model.architecture or NOTHING,
            tokens(model.context_limit), " ".join(model.capabilities)]  # fmt: skip
