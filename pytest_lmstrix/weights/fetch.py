"""Turns the `source` of a model into a local, verified file."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct
from platformdirs import user_cache_path

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.weights.download import DownloadProgress, download, download_failure, size_of
from pytest_lmstrix.weights.filetype import SAMPLE_BYTES, name_file_type
from pytest_lmstrix.weights.gguf import MAGIC
from pytest_lmstrix.weights.source import (
    SPLIT,
    LocalSource,
    parse_source,
    parts,
    why_missing,
    with_home,
)

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_HEADER_SUFFIX = "-header"


class _Record(Struct, frozen=True, kw_only=True):
    """A hash, and the state of the hashed file."""

    sha256: str
    size_bytes: int
    modified_ns: int


def fetch(
    source: str,
    *,
    sha256: str | None = None,
    base_dir: Path,
    cache_dir: Path | None = None,
    progress: DownloadProgress | None = None,
    size_bytes: int | None = None,
) -> Path:
    """Return the file of `source`, downloaded if necessary and verified against `sha256`.

    A relative path is relative to `base_dir`. Downloads are cached in `cache_dir`, else in
    LMSTRIX_CACHE_DIR, else in the user's cache folder; one process downloads a file, others wait
    for it. A file is hashed if it is new or its size or time has changed. `progress` receives the
    bytes so far and, if known, in total; it may be called from another thread.

    Raises:
        SourceError: `source` is not valid.
        Failure: There is no such file (`model_not_found`), it is not the one that `sha256`
            identifies (`corrupted`), or network, server or disk failed (`unreachable`).
    """
    parsed = parse_source(source)
    cache = _cache(cache_dir)
    sha256 = sha256.lower() if sha256 else None
    if isinstance(parsed, LocalSource):
        return _local(source, sha256, base_dir, cache)
    cached = is_cached(source, sha256=sha256, base_dir=base_dir, cache_dir=cache_dir)
    if cached is not None:
        return cached
    target = _target(cache, source)
    work = target.with_name(f"{target.name}.part")
    progress = progress or (lambda done, total: None)
    try:
        with _locked(target, work, progress):
            if target.is_file():
                found, wanted = _hashes(target, _record_path(target), sha256)
                if found == wanted:
                    return target
                # The fault of this disk, or of an older download: not of the model.
                _log.warning("%s is not what was downloaded: downloading it again", target)
                target.unlink()
            _check(download(parsed, work, progress, size_bytes), target, source, sha256)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        full = "; LMSTRIX_CACHE_DIR names another place" if error.errno == errno.ENOSPC else ""
        raise download_failure(f"{source}: {error}{full}") from error
    return target


def is_cached(
    source: str, *, sha256: str | None = None, base_dir: Path, cache_dir: Path | None = None
) -> Path | None:
    """Return the local file of `source` if it exists unchanged, without reading its content.

    Raises:
        SourceError: `source` is not valid.
    """
    parsed = parse_source(source)
    if isinstance(parsed, LocalSource):
        with suppress(Failure):
            return _existing(source, base_dir)
        return None
    target = _target(_cache(cache_dir), source)
    record = _read_record(_record_path(target))
    if record is None or record != _state(target, record.sha256):
        return None
    return target if sha256 is None or sha256.lower() == record.sha256 else None


def header_path(source: str, cache_dir: Path | None = None) -> Path:
    """Return where the header alone of a remote `source` is kept: never among the weights.

    For a split model, of its first file: `parts` finds the others, and llama.cpp does.
    """
    target = _target(_cache(cache_dir).with_name("headers"), source)
    split = SPLIT.search(Path(parse_source(source).filename).stem)
    if split is None:
        return target.with_name(f"{target.name}{_HEADER_SUFFIX}")
    return target.with_name(f"{target.stem}{_HEADER_SUFFIX}{split[0]}{target.suffix}")


def is_header(path: Path) -> bool:
    """Return whether `path` is one that `header_path` returns."""
    name = SPLIT.sub("", path.stem) if SPLIT.search(path.stem) else path.name
    return name.endswith(_HEADER_SUFFIX) and path.parent.name == "headers"


def _cache(cache_dir: Path | None) -> Path:
    if cache_dir is None:
        named = os.environ.get("LMSTRIX_CACHE_DIR")
        cache_dir = with_home(named) if named else user_cache_path("pytest-lmstrix")
    return cache_dir / "weights"


def _target(cache: Path, source: str) -> Path:
    name = Path(re.sub(r"[^A-Za-z0-9._-]", "_", parse_source(source).filename))
    key = hashlib.sha256(source.encode()).hexdigest()[:12]
    return cache / f"{name.stem[:80]}-{key}{name.suffix[:16]}"


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _existing(source: str, base_dir: Path) -> Path:
    try:
        path = base_dir / with_home(source)
        if path.is_file():
            return path
        problem = why_missing(path)
    except (OSError, ValueError) as error:
        path, problem = base_dir / source, str(error)
    raise download_failure(f"{path}: {problem}", Verdict.MODEL_NOT_FOUND)


def _local(source: str, sha256: str | None, base_dir: Path, cache: Path) -> Path:
    path = _existing(source, base_dir)
    if sha256 is not None:
        try:
            found, _ = _hashes(path, _record_path(_target(cache, str(path.resolve()))), sha256)
        except OSError as error:
            raise download_failure(f"{path}: cannot be read: {error}") from error
        if found != sha256:
            raise _mismatch(str(path), sha256, found, "put the right file there")
    return path


def _check(downloaded: Path, target: Path, source: str, sha256: str | None) -> None:
    """Verify a download, and move it into the cache."""
    found = _sha256_of(downloaded)
    if sha256 not in (None, found):
        shutil.rmtree(target.with_name(f"{target.name}.part"))
        raise _mismatch(source, str(sha256), found, "the next run downloads it again")
    _check_magic(downloaded, target, source)
    with downloaded.open("rb+") as file:
        os.fsync(file.fileno())
    # The record comes first: a file without one would be hashed again.
    _write_record(_record_path(target), downloaded, found)
    downloaded.replace(target)


def _check_magic(downloaded: Path, target: Path, source: str) -> None:
    if target.suffix.lower() != ".gguf":
        return
    with downloaded.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    if not start.startswith(MAGIC):
        shutil.rmtree(target.with_name(f"{target.name}.part"))
        raise download_failure(f"{source}: what was downloaded is {name_file_type(start).words}")


def _mismatch(what: str, wanted: str, found: str, way_out: str) -> Failure:
    return download_failure(
        f"{what}: sha256 is {found}, expected {wanted}; {way_out}, or correct sha256 in the"
        " manifest",
        Verdict.CORRUPTED,
    )


def _hashes(path: Path, record_path: Path, wanted: str | None) -> tuple[str, str]:
    """Return the actual hash of a file and the expected one: `wanted`, else as recorded."""
    record = _read_record(record_path)
    if record is not None and record == _state(path, record.sha256):
        found = record.sha256
    else:
        found = _sha256_of(path)
    wanted = wanted or (record.sha256 if record is not None else found)
    if found == wanted:
        with suppress(OSError):
            _write_record(record_path, path, found)
    return found, wanted


def _sha256_of(path: Path) -> str:
    """Return the hash of a file; of a split GGUF, that of its concatenated parts."""
    first, *others = parts(path)
    with first.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for part in others:
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _state(path: Path, sha256: str) -> _Record | None:
    try:
        stats = [part.stat() for part in parts(path)]
    except OSError:
        return None
    return _Record(
        sha256=sha256,
        size_bytes=sum(stat.st_size for stat in stats),
        modified_ns=sum(stat.st_mtime_ns for stat in stats),
    )


def _read_record(path: Path) -> _Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except (OSError, msgspec.MsgspecError):
        return None


def _write_record(record_path: Path, path: Path, sha256: str) -> None:
    record_path.parent.mkdir(parents=True, exist_ok=True)
    record_path.write_bytes(msgspec.json.encode(_state(path, sha256)))


@contextmanager
def _locked(target: Path, work: Path, progress: DownloadProgress) -> Iterator[None]:
    """Hold the lock of a cached file; while waiting, report the other process's progress."""
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{target}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            _log.info("another process is downloading %s", target.name)
            progress(size_of(work), None)
    try:
        yield
    finally:
        lock.release()
