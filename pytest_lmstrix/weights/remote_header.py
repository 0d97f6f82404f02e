"""The header alone of weights on a web server: enough for a dry run, a few megabytes at most."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import httpx

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.system.sparse_file import write_sparse
from pytest_lmstrix.weights.download import (
    HTTP_TIMEOUT,
    check_hop,
    check_response,
    download_failure,
    hub_request,
    validator_of,
)
from pytest_lmstrix.weights.fetch import header_path
from pytest_lmstrix.weights.gguf import read_header
from pytest_lmstrix.weights.header import MOST_BYTES, header_size, model_files
from pytest_lmstrix.weights.source import HubSource, UrlSource, parse_source, part_sources

FIRST_BYTES = 1 << 20
"""Requested at first; each request after it requests as much as is there."""
FIRST_BYTES_OF_PART = 1 << 16
"""Requested at first of a later file of a split model, which has no vocabulary."""
MOST_PARTS = 100
"""Files of one split model."""


def fetch_header(source: str, *, cache_dir: Path | None = None) -> Path:
    """Return a sparse file with the header of `source`, and as long as the file itself.

    The header is fetched by ranges and kept in the cache, in a folder that no weights are loaded
    from. The headers of all files of a split model are fetched; the first is returned.

    Raises:
        SourceError: `source` cannot be understood.
        Failure: The header is not available on its own (`unreachable`), the file does not exist
            (`model_not_found`), or it is not a GGUF file (`corrupted`).
    """
    sources = part_sources(source)
    if len(sources) > MOST_PARTS:
        text = f"{source}: {len(sources):,} files; headers of at most {MOST_PARTS} are fetched"
        raise download_failure(text)
    first = header_path(source, cache_dir)
    if not first.is_file():
        _fetch_to(first, source, FIRST_BYTES)
    targets = model_files(first, read_header(first)) if len(sources) > 1 else [first]
    for target, each in zip(targets[1:], sources[1:], strict=False):
        if not target.is_file():
            _fetch_to(target, each, FIRST_BYTES_OF_PART)
    return first


def _fetch_to(target: Path, source: str, first_bytes: int) -> None:
    url, headers = _request(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        header, size_bytes = _Ranges(url, headers, first_bytes).read()
        draft = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        try:
            write_sparse(draft, header, size_bytes)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise download_failure(f"{source}: {error}") from error


def _request(source: str) -> tuple[str, dict[str, str]]:
    parsed = parse_source(source)
    match parsed:
        case UrlSource():
            return parsed.url, {}
        case HubSource():
            return hub_request(parsed)
    raise download_failure(
        f"{source}: the header cannot be fetched on its own; a run downloads the file"
    )


class _Ranges:
    """The beginning of a file, fetched range by range until its header is complete."""

    def __init__(self, url: str, headers: dict[str, str], first_bytes: int) -> None:
        self._url = url
        self._first_bytes = first_bytes
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._data = bytearray()
        self._total: int | None = None
        self._validator = ""

    def read(self) -> tuple[bytes, int]:
        """Return the header, and the size of the file in bytes."""
        try:
            with httpx.Client(
                follow_redirects=True,
                timeout=HTTP_TIMEOUT,
                event_hooks={"request": [lambda request: check_hop(self._url, request.url)]},
            ) as client:
                while (size := self._header_size()) is None:
                    self._read_more(client)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise download_failure(f"{self._url}: {error or type(error).__name__}") from error
        assert self._total is not None  # known since the first answer
        return bytes(self._data[:size]), self._total

    def _header_size(self) -> int | None:
        try:
            size = header_size(bytes(self._data))
        except ValueError as error:
            raise self._failure(str(error), Verdict.CORRUPTED) from error
        if size is None and self._total is not None and len(self._data) >= self._total:
            raise self._failure("the file ends within its header", Verdict.CORRUPTED)
        if size is None and len(self._data) >= MOST_BYTES:
            raise self._failure(f"a header of more than {MOST_BYTES:,} bytes", Verdict.CORRUPTED)
        return size

    def _read_more(self, client: httpx.Client) -> None:
        start = len(self._data)
        end = min(MOST_BYTES, max(self._first_bytes, 2 * start))
        wanted = {**self._headers, "Range": f"bytes={start}-{end - 1}"}
        if start and self._validator:
            wanted["If-Range"] = self._validator
        with client.stream("GET", self._url, headers=wanted) as response:
            check_response(self._url, response)
            if response.status_code == 200 and start:
                raise self._failure("the file changed while its header was read")
            self._check_total(response, start)
            self._validator = validator_of(response)
            for chunk in response.iter_raw():
                self._data += chunk
                if len(self._data) < end:
                    continue
                # A server without ranges sends the whole file: stop where the header ends.
                if response.status_code == 206 or self._header_size() is not None:
                    break
                end = 2 * end
        if len(self._data) == start:
            raise self._failure("the server sent nothing")

    def _check_total(self, response: httpx.Response, start: int) -> None:
        if response.status_code == 206:
            text = response.headers.get("content-range", "")
            found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", text)
            if found is None or int(found[1]) != start:
                raise self._failure(f"the server sent another range than was asked for: {text!r}")
            total = int(found[2])
        else:
            length = response.headers.get("content-length", "")
            if not re.fullmatch(r"[0-9]{1,18}", length):
                raise self._failure("the server does not declare the length of the file")
            total = int(length)
        if self._total not in (None, total):
            raise self._failure("the file changed while its header was read")
        self._total = total

    def _failure(self, text: str, verdict: Verdict = Verdict.UNREACHABLE) -> Failure:
        return download_failure(f"{self._url}: {text}", verdict)
