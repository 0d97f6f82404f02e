"""Parsing of the `source` of a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_lmstrix.weights.source import (
    HubSource,
    LocalSource,
    PypiSource,
    Source,
    SourceError,
    UrlSource,
    parse_source,
)


@pytest.mark.parametrize(
    ("text", "expected", "filename"),
    [
        ("a/b c.gguf", LocalSource("a/b c.gguf"), "b c.gguf"),
        ("~/b.gguf", LocalSource("~/b.gguf"), "b.gguf"),
        (r"C:\models\b.gguf", LocalSource(r"C:\models\b.gguf"), "b.gguf"),
        ("hf://o/r/f.gguf", HubSource("o/r", "f.gguf"), "f.gguf"),
        (
            "hf://o/r-1.5/s/f.gguf@refs/pr/1",
            HubSource("o/r-1.5", "s/f.gguf", "refs/pr/1"),
            "f.gguf",
        ),
        ("HF://o/r/f.gguf", HubSource("o/r", "f.gguf"), "f.gguf"),
        ("pypi://n-a_m.e==1!2.0rc1+x/p/f", PypiSource("n-a_m.e", "1!2.0rc1+x", "p/f"), "f"),
        ("https://h/p/f%20g.gguf?x=1", UrlSource("https://h/p/f%20g.gguf?x=1"), "f g.gguf"),
        ("https://h", UrlSource("https://h"), "weights"),
        ("http://127.0.0.1:8/f", UrlSource("http://127.0.0.1:8/f"), "f"),
        ("http://[::1]/f", UrlSource("http://[::1]/f"), "f"),
    ],
)
def test_valid_sources_are_parsed(text: str, expected: Source, filename: str) -> None:
    assert parse_source(text) == expected
    assert expected.filename == filename


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must name a file"),
        ("file:///x", "must be a path, or begin with hf://"),
        ("http://example.org/f", "must begin with https://"),
        ("https:///f", "must read https://"),
        ("https://h/a b", "must read https://"),
        ("https://[h/a", "must read https://"),
        ("hf://owner/repo", "must read hf://"),
        ("hf://owner/repo/../x", "must read hf://"),
        ("hf://owner/repo/x/", "must read hf://"),
        ("hf://owner/repo/x@", "must read hf://"),
        ("pypi://name/x", "must read pypi://"),
        ("pypi://name==1", "must read pypi://"),
        ("pypi://name==1/", "must read pypi://"),
        ("pypi://name>=1/x", "must read pypi://"),
        ("pypi://--index-url==1/x", "must read pypi://"),
        ("pypi://name== 1/x", "must read pypi://"),
        ("pypi://name==1/a/../../x", "must read pypi://"),
        ("pypi://name==1//x", "must read pypi://"),
        (r"pypi://name==1/a\b", "must read pypi://"),
    ],
)
def test_invalid_sources_are_refused(text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        parse_source(text)


@given(st.sampled_from(["", "hf://", "pypi://", "https://", "http://", "pypi://a==1/"]), st.text())
def test_any_text_is_parsed_or_refused(scheme: str, rest: str) -> None:
    try:
        source = parse_source(scheme + rest)
    except SourceError:
        return
    assert "/" not in source.filename or isinstance(source, UrlSource)
    if isinstance(source, PypiSource):
        assert not source.name.startswith("-")
