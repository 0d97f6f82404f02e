"""Keeps the logs of failed servers in files, the newest few."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pytest_lmstrix.core.failure import LOG_LINE, Failure
from pytest_lmstrix.core.sanitize import clean

MOST_LOGS = 20
MOST_LOG_BYTES = 200_000
"""Kept of one log: its end."""
_NAME_CHARACTERS = 60


class ServerLogs:
    """The logs in `folder`; `None` keeps none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def keep(self, failure: Failure, log: Sequence[str], name: str) -> Failure:
        """Write `log` to a file for `name` and add its path to `failure`, which is returned.

        A log that is empty or cannot be written is not named.
        """
        if self._folder is None or not log:
            return failure
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-_NAME_CHARACTERS:]
        path = self._folder / f"llamacpp-{moment}-{safe}.log"
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_end_of(log))
            failure.text = f"{failure.text}\n{LOG_LINE}{path}"
            self._remove_oldest(self._folder)
        return failure

    def _remove_oldest(self, folder: Path) -> None:
        for old in sorted(folder.glob("llamacpp-*.log"))[:-MOST_LOGS]:
            old.unlink(missing_ok=True)  # another process may do the same


def _end_of(log: Sequence[str]) -> bytes:
    text = "".join(f"{line}\n" for line in log)
    return clean(text, len(text)).encode()[-MOST_LOG_BYTES:]
