"""Sparse files: of any length, with disk space only for what is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def write_sparse(path: Path, beginning: bytes, size_bytes: int) -> None:
    """Write a file of `size_bytes` that starts with `beginning` and has zeros after it.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("wb") as file:
        if sys.platform == "win32":
            # Elsewhere every file is sparse; NTFS wants to be asked, while the file is empty.
            command = ["fsutil", "sparse", "setflag", str(path)]
            subprocess.run(command, check=False, capture_output=True)
        file.write(beginning)
        file.truncate(size_bytes)
