"""The end of the terminal output: headline, changes, what to do, models, in this order."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_lmstrix.core.formatting import count_of, rate, seconds, tokens, verdict_text
from pytest_lmstrix.core.table import Paint, TableCell, prose, table, without_alike
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.reports.changes import MEASURES, basis, format_measure, where
from pytest_lmstrix.reports.overview.broken import break_text
from pytest_lmstrix.reports.overview.headline import headline
from pytest_lmstrix.reports.overview.notes import explained_notes
from pytest_lmstrix.reports.overview.problems import Affected, Cause, causes
from pytest_lmstrix.reports.overview.standing import failures_first
from pytest_lmstrix.reports.run_json import RunReport, representative_of
from pytest_lmstrix.system.addresses import remote_host, shown_host

_HEADINGS = (
    "model",
    "host",
    "declared",
    "verified",
    "first bad",
    "verdict",
    "load",
    "TTFT",
    "tok/s",
)
EXPENDABLE = ("load", "declared", "TTFT", "host", "first bad", "tok/s", "verified")
STYLES = {"passed": "green", "xfailed": "yellow", "skipped": "yellow"}
CHANGE_HEADINGS = ("changed", "what", "where", "before", "now", "known")
CHANGE_EXPENDABLE = ("known", "what", "where")
_MOST_CHANGES = 20
_MOST_CAUSES = 10
_MOST_NAMES = 10
"""Models named under a cause."""
_MOST_NOTES = 10


def opening(run: RunReport, *, width: int | None, paint: Paint) -> Iterator[str]:
    """Return the headline, and the line on machine, engines, hosts, date and duration."""
    found = headline(run)
    for text, style in ((found.sentence, "bold"), (found.setting, "")):
        for line in prose([[text]], paint=paint, width=width):
            yield paint(line, style)


def changes_table(run: RunReport, *, width: int | None, paint: Paint) -> Iterator[str]:
    """Return the lines of the table of changes, worst first, and since when models are broken."""
    changes = run.changes[:_MOST_CHANGES]
    lines: list[list[TableCell]] = [
        [
            (change.model, "red" if change.is_regression else ""),
            change.kind.replace("_", " ") if change.measure == "verdict"
            else f"{change.kind.partition('_')[0]} {MEASURES[change.measure]}",
            where(change),
            format_measure(change, change.before),
            format_measure(change, change.after),
            basis(change),
        ]
        for change in changes
    ]  # fmt: skip
    yield from table(CHANGE_HEADINGS, lines, width=width, paint=paint, expendable=CHANGE_EXPENDABLE)
    if len(run.changes) > _MOST_CHANGES:
        yield f"and {count_of(len(run.changes) - _MOST_CHANGES, 'more change')}"
    breaks = {(change.model, text): None for change in changes if (text := break_text(run, change))}
    yield from prose([[f"{model}: {text}"] for model, text in breaks], paint=paint, width=width)


def what_to_do(run: RunReport, *, width: int | None, paint: Paint) -> Iterator[str]:
    """Return each cause of problems with its advice and its models; nothing without problems."""
    found = causes(run)
    rows: list[list[TableCell]] = []
    for cause in found[:_MOST_CAUSES]:
        thing = "test" if cause.family is None else "model"
        several = len(cause.affected) > 1  # one alone has its own line with the words
        remedy = cause.advice or (cause.words if several else "")
        advice = f": {remedy}" if remedy else ""
        rows.append([(count_of(len(cause.affected), thing), "bold"), f"{cause.title}{advice}"])
        rows.append(["", _names(cause)])
    if len(found) > _MOST_CAUSES:
        rows.append(["", f"and {count_of(len(found) - _MOST_CAUSES, 'more cause')}"])
    if rows:
        yield paint("what to do", "bold")
        yield from prose(rows, paint=paint, width=width)


def _names(cause: Cause) -> str:
    """Return the models of a cause; one alone with its size and the engine's words."""
    if len(cause.affected) == 1:
        (only,) = cause.affected
        place = f", {only.where}" if only.where else ""
        return f"{only.name}{place}" + (f": {only.detail}" if only.detail else "")
    names = [_name_with_host(each) for each in cause.affected]
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _name_with_host(each: Affected) -> str:
    """Return a model, and its host if that has the problem."""
    result = each.result
    of_host = result is not None and result.verdict.subject == "host"
    host = remote_host(result.host) if result is not None and of_host else None
    return f"{each.name} ({host})" if host else each.name


def closing_table(run: RunReport, *, width: int | None, paint: Paint) -> Iterator[str]:
    """Return the lines of the table of tested models, failures first, and what `slow` means."""
    lines: list[list[TableCell]] = []
    for model in failures_first(run):
        results = run.results[model.id]
        if not results:
            continue
        result = representative_of(results)
        style = STYLES.get(result.outcome, "red")
        lines.append([
            model.id,
            shown_host(result.host),
            tokens(model.context_limit),
            tokens(model.verified_context),
            tokens(model.smallest_bad),
            (verdict_text(result.verdict, results), style),
            seconds(result.load_seconds),
            seconds(result.ttft_seconds),
            rate(result.decode_tokens_per_second),
        ])  # fmt: skip
    headings, rows = without_alike("host", _HEADINGS, lines)
    expendable = [each for each in EXPENDABLE if each in headings]
    yield from table(
        headings, rows, width=width, paint=paint, left=("host",), expendable=expendable
    )
    notes = list(explained_notes(run))
    if len(notes) > _MOST_NOTES:
        notes[_MOST_NOTES:] = ["and " + count_of(len(notes) - _MOST_NOTES, "more note")]
    yield from prose([[each] for each in notes], paint=paint, width=width)


def short_word(word: str, verdict: Verdict, node_id: str, width: int) -> str:
    """Return `FAILED(crashed)` where the verdict after the node id does not fit, else `word`.

    pytest cuts the short summary lines of failures at the width of the terminal.
    """
    fits = len(f"{word} {node_id} - {verdict}: ...") <= width
    return word if fits else f"{word}({verdict})"
