"""Run a server in its own process: `python -m tests.standin.lmstudio CONFIG.json`.

Prints its `host:port`, then reads commands from standard input, each answered with `done`:
`release`, `freeze`, `thaw`, `drop_connections`, `restart`, `go_away`, `come_back`. It ends when
its input does, so it never outlives its parent.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.standin.lmstudio.config import ServerConfig


def main(config_path: str) -> None:
    """Serve until the end of standard input."""
    with ServerConfig.read(Path(config_path)).server() as server:
        print(server.host, flush=True)
        for line in sys.stdin:
            getattr(server, line.strip())()
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
