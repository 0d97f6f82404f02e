"""Tables fit the terminal, align their columns and are sanitized."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pytest_lmstrix.core.table import FIRST_COLUMN, TableCell, prose, table

HEADINGS = ("model", "engine", "size", "status")


def plain(text: str, colour: str) -> str:
    return text


def shown(rows: list[list[TableCell]], width: int | None = None) -> list[str]:
    return list(
        table(HEADINGS, rows, paint=plain, width=width, left=["status"], expendable=HEADINGS[1:])
    )


ROWS: list[list[TableCell]] = [
    ["a-model", "lmstudio", "2.0 GB", "ok"],
    ["b", "x", "93 MB", "failed"],
]


def test_first_and_named_columns_are_left_aligned() -> None:
    assert shown(ROWS) == [
        "model      engine    size  status",
        "a-model  lmstudio  2.0 GB  ok",
        "b               x   93 MB  failed",
    ]


def test_narrow_tables_drop_gaps_then_optional_columns_then_shorten_names() -> None:
    assert shown(ROWS, 33)[1] == "a-model  lmstudio  2.0 GB  ok"
    assert shown(ROWS, 30)[1] == "a-model lmstudio 2.0 GB ok"
    assert shown(ROWS, 26)[1] == "a-model 2.0 GB ok"
    assert shown(ROWS, 12)[1] == "a-model"
    assert shown(ROWS, 4) == ["mo…l", "a-…l", "b"]
    rows: list[list[TableCell]] = [["m" * 40, "lmstudio", "2.0 GB", "ok"]]
    assert shown(rows, FIRST_COLUMN + 23)[1] == "mmmmmmmm…mmmmmmm lmstudio 2.0 GB ok"


def test_colour_does_not_change_column_widths() -> None:
    rows: list[list[TableCell]] = [["a", ("ok", "green"), "1", "x"]]
    (_, line) = table(HEADINGS, rows, paint=lambda text, colour: f"<{colour}>{text}</>")
    assert line == "a          <green>ok</>     1       x"


def test_wrapped_text_is_indented_to_its_column() -> None:
    rows: list[list[TableCell]] = [["error", "a:1", "word " * 8], ["info", "b", ""]]
    assert list(prose(rows, paint=plain, width=42, right=[1])) == [
        "error  a:1  word word word word word word",
        "            word word",
        "info     b",
    ]
    assert list(prose(rows[:1], paint=plain)) == ["error  a:1  " + " ".join(["word"] * 8)]
    assert list(prose([], paint=plain)) == []


def test_text_that_does_not_fit_beside_moves_to_its_own_lines() -> None:
    rows: list[list[TableCell]] = [["error", "a:1", "word " * 8], ["info", "b", ""]]
    assert list(prose(rows, paint=plain, width=41)) == [
        "error  a:1",
        "    word word word word word word word",
        "    word",
        "info   b",
    ]


CELLS = st.one_of(st.text(max_size=40), st.tuples(st.text(max_size=40), st.just("red")))
GRID = st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=4)


@given(GRID, st.integers(1, 200))
def test_lines_fit_the_terminal_and_hold_no_control_characters(
    rows: list[list[TableCell]], width: int
) -> None:
    lines = shown(rows, width)
    assert len(lines) == len(rows) + 1
    for line in lines:
        assert cell_len(line) <= width
        assert "\x1b" not in line
        assert "\n" not in line


@given(st.lists(st.lists(st.text("ab c\x1b\n", max_size=60), min_size=2, max_size=2), max_size=4))
def test_wrapped_text_fits_its_width(rows: list[list[str]]) -> None:
    heads = [" ".join(row[0].replace("\x1b", "").split()) for row in rows]
    for line in prose(rows, paint=plain, width=50):
        assert len(line) <= 50 or line in heads
        assert "\x1b" not in line


def test_names_that_begin_alike_stay_distinct_when_cut_and_are_whole_in_a_log() -> None:
    names = ("llama-3.2-3b-instruct-q4_k_m", "llama-3.2-3b-instruct-q8_0")
    rows: list[list[TableCell]] = [[name, "lmstudio", "2.0 GB", "ok"] for name in names]
    cut = [line.split()[0] for line in shown(rows, 44)[1:]]
    assert len(set(cut)) == 2
    assert all("…" in name and name.startswith("llama-3") for name in cut)
    assert [line.split()[0] for line in shown(rows)[1:]] == list(names)
