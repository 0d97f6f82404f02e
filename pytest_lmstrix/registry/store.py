"""The registry: an append-only JSON Lines file with every result.

Any number of processes may share it. When `append` returns, its result is on disk and survives a
kill of any process. Reading takes no lock, changes nothing and never fails because of a line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.registry.backups import (
    Restored,
    choose_backup,
    make_backup,
    restore_backup,
)
from pytest_lmstrix.registry.files import (
    RegistryError,
    RegistryLock,
    append_line_bytes,
    open_to_read,
    registry_error,
    set_aside,
)
from pytest_lmstrix.registry.fold import Fold, ModelStatus
from pytest_lmstrix.registry.history.since import Since, Timelines
from pytest_lmstrix.registry.known import Known, VerifyingCheck
from pytest_lmstrix.registry.lines import Flaw, Scan, encode, encode_acceptance
from pytest_lmstrix.registry.recommended import Recommendation, recommend
from pytest_lmstrix.system.garbage import collector_paused
from pytest_lmstrix.system.machine_id import machine_id

__all__ = ["Flaw", "Known", "Loaded", "ModelStatus", "Recommendation", "Registry", "RegistryError",
           "Restored"]  # fmt: skip


class Loaded(Struct, frozen=True, kw_only=True):
    """The contents of a registry, as they were read."""

    results: int
    damaged: tuple[Flaw, ...] = ()
    newer: tuple[Flaw, ...] = ()
    """Lines of a schema that only a later version understands; kept, but not evaluated."""
    torn: Flaw | None = None
    """An incomplete last line: its writer was killed or is still writing."""
    set_aside: Path | None = None
    """The file to which this load copied damaged lines."""


class _Reading:
    """The part of the file read so far, and its contents."""

    def __init__(self) -> None:
        self.seen = (0, 0, -1)
        """Device, number and size of the file."""
        self.offset = 0
        self.next_line = 1
        self.fold = Fold()
        self.timelines = Timelines()
        self.damaged: list[Flaw] = []
        self.newer: list[Flaw] = []
        self.torn: Flaw | None = None


class Registry:
    """The results in the file `path`, which need not exist yet.

    Every method that uses the file raises `RegistryError` when it cannot be read, written or
    locked.
    """

    def __init__(self, path: Path | str, *, lock_timeout_seconds: float = 60.0) -> None:
        # Resolved and absolute: all names of a file share one lock, and the folder may change.
        self.path = Path(os.path.realpath(path))
        self._lock = RegistryLock(self.path, lock_timeout_seconds)
        self._reading = _Reading()

    def append(self, result: Result) -> None:
        """Append `result` durably: it is synced to disk when this returns.

        Raises:
            RegistryError: It was not written.
            ValueError: It violates the schema.
        """
        self.append_many((result,))

    def append_many(self, results: Iterable[Result]) -> None:
        """Append several results durably, in one write; see `append`."""
        if data := b"".join(map(encode, results)):
            with self._lock.held():
                append_line_bytes(self.path, data)

    def accept(self, acceptances: Iterable[Acceptance]) -> None:
        """Append acceptances durably; see `append`."""
        if data := b"".join(map(encode_acceptance, acceptances)):
            with self._lock.held():
                append_line_bytes(self.path, data)

    def load(self) -> Loaded:
        """Read the new lines of the file, and copy each damaged line once to a file beside it.

        The registry itself is not changed.
        """
        reading = self._refresh()
        copied = None
        if reading.damaged:
            with contextlib.suppress(RegistryError), self._lock.held():
                copied = set_aside(self.path, (flaw.raw for flaw in reading.damaged))
        return Loaded(
            results=reading.fold.count,
            damaged=tuple(reading.damaged),
            newer=tuple(reading.newer),
            torn=reading.torn,
            set_aside=copied,
        )

    def results(self) -> Iterator[Result]:
        """Yield every result, oldest first, reading the file line by line."""
        return (item for item in self.lines() if isinstance(item, Result))

    def lines(self) -> Iterator[Result | Acceptance]:
        """Yield every result and acceptance, oldest first, reading the file line by line."""
        try:
            with open_to_read(self.path) as stream:
                for item in Scan(stream):
                    if not isinstance(item, Flaw):
                        yield item
        except FileNotFoundError:
            return
        except OSError as error:
            raise registry_error(self.path, "cannot be read", error) from error

    def history(self, model: str) -> tuple[Result, ...]:
        """Return every result of `model`, oldest first."""
        return tuple(result for result in self.results() if result.model == model)

    def status(
        self,
        model: str,
        *,
        fingerprint: str | None = None,
        engine: str | None = None,
        settings: str | None = None,
    ) -> ModelStatus | None:
        """Return the status of `model`, or `None` when it has no line.

        `fingerprint` defaults to that of the newest weights seen. `engine` and `settings` exclude
        results of others.
        """
        return self._refresh().fold.status(
            model, fingerprint=fingerprint, engine=engine, settings=settings
        )

    def since(self, model: str) -> tuple[Since, ...]:
        """Return since when each check of `model` works or fails, the newest result first.

        There is one for each engine, machine, remote host, fingerprint, settings and check.
        """
        return self._refresh().timelines.of(model)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the status of every model that has a line."""
        fold = self._refresh().fold
        return tuple(status for model in fold.models() if (status := fold.status(model)))

    def verified_context(
        self, model: str, *, check: VerifyingCheck | None = None, fingerprint: str | None = None
    ) -> int | None:
        """Return the largest verified size, in tokens, or `None` when there is none.

        Its newest verdict is `ok` in `check` (`None`: in `full` or `deep`), and no smaller size
        fails. `fingerprint` defaults to that of the newest weights seen.
        """
        status = self._refresh().fold.status(model, check=check, fingerprint=fingerprint)
        return status.verified_context if status else None

    def recommended(
        self,
        model: str,
        *,
        check: VerifyingCheck | None = None,
        fingerprint: str | None = None,
        engine: str | None = None,
        settings: str | None = None,
        machine: str | None = None,
    ) -> Recommendation | None:
        """Return the context length to set for `model` in other programs, or `None`.

        It is verified by `check` (`None`: by `full` or `deep`) on `machine` (`None`: this one);
        `fingerprint`, `engine` and `settings` default to those of the newest result. There is
        none while the newest verdict is that the model is missing or corrupted.
        """
        return recommend(
            model,
            self._refresh().fold.known(model),
            machine=machine or machine_id(),
            check=check,
            fingerprint=fingerprint,
            engine=engine,
            settings=settings,
        )

    def known(
        self,
        model: str,
        check: str | None = None,
        context_length: int | None = None,
        *,
        engine: str | None = None,
        fingerprint: str | None = None,
        settings: str | None = None,
    ) -> tuple[Known, ...]:
        """Return the newest verdicts of `model` that match, newest first; `None` matches any value.

        There is one for each engine, host, fingerprint, settings, check and size; `unreachable`
        results are ignored.
        """
        return tuple(
            line
            for line in self._refresh().fold.known(model)
            if check in (None, line.check)
            and context_length in (None, line.context_length)
            and engine in (None, line.engine)
            and fingerprint in (None, line.fingerprint)
            and settings in (None, line.settings)
        )

    def backup(self) -> Path | None:
        """Copy the file into `backups/`; see `registry.backups` for the copies that are kept.

        Returns the copy, or `None` when there is nothing to copy yet.
        """
        with self._lock.held():
            return make_backup(self.path)

    def restore(self, backup: Path | str | None = None) -> Restored:
        """Restore a backup, and keep the file that it replaces; see `choose_backup`."""
        chosen = choose_backup(self.path, backup)  # without the lock, which creates its folder
        with self._lock.held():
            return restore_backup(self.path, *chosen)

    def _refresh(self) -> _Reading:
        """Read the lines added since the last reading, or everything if the file was replaced."""
        reading, self._reading = self._reading, _Reading()  # if interrupted, start over
        try:
            now = self.path.stat()
            if reading.seen != (now.st_dev, now.st_ino, now.st_size):
                with open_to_read(self.path) as stream:
                    reading = _read_on(stream, reading)
        except FileNotFoundError:
            reading = _Reading()
        except OSError as error:
            raise registry_error(self.path, "cannot be read", error) from error
        self._reading = reading
        return reading


@collector_paused()
def _read_on(stream: BinaryIO, reading: _Reading) -> _Reading:
    now = os.fstat(stream.fileno())
    if reading.seen[:2] != (now.st_dev, now.st_ino) or now.st_size < reading.offset:
        reading = _Reading()
    reading.seen = (now.st_dev, now.st_ino, now.st_size)
    reading.torn = None
    stream.seek(reading.offset)
    scan = Scan(stream, reading.next_line)
    for item in scan:
        if isinstance(item, Result):
            reading.fold.add(item)
            reading.timelines.add(item)
        elif isinstance(item, Acceptance):
            reading.timelines.accept(item)
        elif item.kind == "damaged":
            reading.damaged.append(item)
        elif item.kind == "newer":
            reading.newer.append(item)
        else:
            reading.torn = item
    reading.next_line = scan.next_line
    reading.offset = stream.tell() - (reading.torn.size_bytes if reading.torn else 0)
    return reading
