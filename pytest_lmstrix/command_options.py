"""The options of the commands that run instead of tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

EXPORT_APPS = ("json", "lmstudio", "ollama", "opencode", "kilo", "vscode", "continue",
               "llama-server", "litellm", "aider", "zed", "llama-swap", "codex", "cline", "roo",
               "open-webui", "jan")  # fmt: skip
"""Programs that `--lmstrix-export` knows; `export.apps` has their formats."""


def add_commands(parser: pytest.Parser, add: Callable[..., None]) -> None:
    add("--lmstrix-scan", action="store_true",
        help="Append new models of the engines to the manifest, and exit; -v adds the largest"
        " context that fits")  # fmt: skip
    add("--lmstrix-list", nargs="?", const="smart", metavar="KEY",
        help="List the models and their status, and exit; KEY as for --lmstrix-sort; -k selects,"
        " -v adds the history, -q prints only ids")  # fmt: skip
    add("--lmstrix-history", nargs="?", const="", metavar="MODEL",
        help="Show since when each model works, or does not, and exit")  # fmt: skip
    add("--lmstrix-accept", nargs="?", const="", metavar="MODEL",
        help="Accept the regressions of a model (default: all) as they are, and exit")  # fmt: skip
    add("--lmstrix-fit", action="store_true",
        help="List the memory that each model needs at each context length, and whether this"
        " machine has it, and exit; loads and downloads no model; -k selects")  # fmt: skip
    add("--lmstrix-format", choices=("table", "json", "md", "html"), default="table",
        help="Format of --lmstrix-list, --lmstrix-fit and --lmstrix-history (default: table); html"
        " is for --lmstrix-history and writes index.html, the page of all nights, to the"
        " reports")  # fmt: skip
    add("--lmstrix-health", action="store_true",
        help="Check the registry and its backups, and exit: 1 if there are errors,"
        " else 0")  # fmt: skip
    add("--lmstrix-restore", nargs="?", const="", metavar="BACKUP",
        help="Restore a backup of the registry (default: the newest undamaged one), keep the"
        " former registry, and exit")  # fmt: skip
    add("--lmstrix-export", action="append", metavar="APP[:PATH][,...]",
        help="Print the verified context lengths as settings for other programs, or merge them into"
        " the file PATH of each, and exit; APP is one of "
        f"{', '.join(EXPORT_APPS)}")  # fmt: skip
    add("--lmstrix-export-dry-run", action="store_true",
        help="With --lmstrix-export: show the changes and write nothing")  # fmt: skip
    add("--lmstrix-check", choices=("full", "deep"), default="full",
        help="With --lmstrix-export: the check that must have passed; full includes deep"
        " (default: full)")  # fmt: skip
    add("--lmstrix-margin", type=float, default=0.0, metavar="PERCENT",
        help="With --lmstrix-export: stay this much below the verified size"
        " (default: 0)")  # fmt: skip
    add("--lmstrix-import", metavar="FILE",
        help="Append the models of lmstrix's file lmstrix.json to the manifest, and its results,"
        " marked as imported, to the registry, and exit")  # fmt: skip
    parser.addini("lmstrix_gguf_dirs", "More folders where --lmstrix-scan searches for GGUF files,"
                  " one a line, relative to this file", type="linelist", default=[])  # fmt: skip
