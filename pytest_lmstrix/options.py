"""Options and ini keys, read once into a frozen `Settings`.

Every pytest run with the plugin installed imports this module: no heavy imports.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lmstrix.command_options import add_commands

if TYPE_CHECKING:
    from pytest_lmstrix.core.types import Host

COMMANDS = (
    "scan", "list", "fit", "history", "accept", "health", "restore", "export", "import",
)  # fmt: skip
"""`--lmstrix-<command>` runs instead of tests."""


HELP_ALL = "Run also cases with a cached result (default: only untested, failed or changed ones);" \
           " --all for short, unless another plugin or a conftest.py has that option"  # fmt: skip

REGISTRY = "registry.jsonl"
"""In the folder of the reports."""

LOGS = "logs"
"""Subfolder of the reports for the logs of failed servers."""

SORT_KEYS = (
    "smart",
    "id",
    "size",
    "estimate",
    "ctx",
    "declared",
    "ttft",
    "tps",
    "status",
    "tested",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a run; absolute paths, times in seconds."""

    models: Path
    registry: Path
    reports: Path
    gguf_dirs: tuple[Path, ...]
    all: bool
    contexts: tuple[int, ...] | None
    hosts: tuple[str, ...]
    """Addresses, and names of hosts of the manifest; see `hosts_of_run`."""
    engine: str
    llama_server: str | None
    """Path or name of the user's program."""
    load_timeout: float
    reply_timeout: float
    cooldown: float
    skip_unfit: bool
    """Skip what needs more memory than is free."""
    sort: str
    fail_on_regression: float | None
    """Threshold for speeds in percent; `None` if regressions do not fail the run."""


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("lmstrix", "lmstrix: local LLM models as test cases")
    add = group.addoption
    add("--lmstrix", action="store_true", help="Run model tests only")
    parser.addini("lmstrix", "Run model tests beside all others, as editors need it (true, false)",
                  type="bool", default=False)  # fmt: skip
    add("--lmstrix-all", dest="lmstrix_all", action="store_true", help=HELP_ALL)

    def setting(name: str, help: str, default: Any, kind: Any = "string", **more: Any) -> None:
        add(f"--lmstrix-{name}", dest=f"lmstrix_{name}", default=None, help=help, **more)
        ini_help = f"{help} (as --lmstrix-{name})"
        parser.addini(f"lmstrix_{_ini(name)}", ini_help, type=kind, default=default)

    setting("models", "Manifest of the models (default: models.yaml)", "models.yaml",
            metavar="PATH")  # fmt: skip
    setting("reports", "Folder of the reports and the registry (default: reports in rootdir)", "",
            metavar="DIR")  # fmt: skip
    setting("registry", "Registry of all results (default: registry.jsonl in the folder of the"
            " reports)", "", metavar="PATH")  # fmt: skip
    setting("ctx", "Test these context lengths instead of the ladder", [], "args",
            metavar="N[,N...]")  # fmt: skip
    setting("host", "LM Studio's host:port, ollama://host:port or openai+http://host:port, "
            "ENGINE://host:port of another engine, or the name of a host of the manifest;"
            " repeatable (default: those of the manifest, or found on this machine)",
            [], "args", action="append",
            metavar="HOST")  # fmt: skip
    setting("engine", "Engine of models without the key engine (default: lmstudio)", "lmstudio",
            metavar="NAME")  # fmt: skip
    setting("llama-server", "The llama-server to run for models of the engine llama-server"
            " (default: the one on PATH)", "", metavar="PATH")  # fmt: skip
    setting("load-timeout", "Longest time without progress while loading (default: 600)",
            600.0, "float", type=float, metavar="SECONDS")  # fmt: skip
    setting("reply-timeout", "Longest time without progress or a token while prefilling or"
            " answering (default: 120)", 120.0, "float", type=float,
            metavar="SECONDS")  # fmt: skip
    setting("cooldown", "Pause after a confirmed unload (default: 0)", 0.0, "float", type=float,
            metavar="SECONDS")  # fmt: skip
    add("--lmstrix-fail-on-regression", dest="lmstrix_fail_on_regression", nargs="?",
        default=None, const="25", metavar="PERCENT",
        help="Fail the run on regressions against earlier runs with the same engine on this"
        " machine; of speeds, those above PERCENT and above noise (default: 25)")  # fmt: skip
    add("--lmstrix-skip-unfit", dest="lmstrix_skip_unfit", action="store_true",
        help="Skip cases of llama.cpp that need more memory than is free, by llama.cpp's own"
        " estimate (default: try them)")  # fmt: skip
    add("--lmstrix-sort", dest="lmstrix_sort", default="smart", metavar="KEY",
        help=f"Order of the models: {', '.join(SORT_KEYS)}; a trailing d reverses, as in smartd"
        " (default: smart)")  # fmt: skip
    add_commands(parser, add)


def replace_short_all(parser: pytest.Parser, args: list[str]) -> None:
    """Replace `--all` by `--lmstrix-all`, unless a plugin or conftest.py has an `--all` of its own.

    It is not an option of the parser, where a conftest.py that is loaded later could not add one.
    """
    groups = (*parser._groups, parser._anonymous)
    if not any("--all" in option.names() for group in groups for option in group.options):
        args[:] = ["--lmstrix-all" if arg == "--all" else arg for arg in args]


def _ini(name: str) -> str:
    return {"ctx": "contexts", "host": "hosts"}.get(name, name.replace("-", "_"))


def command(config: pytest.Config) -> str | None:
    """Return which of `COMMANDS` runs instead of tests, if any.

    Raises:
        pytest.UsageError: More than one is given.
    """
    values = {name: config.getoption(f"lmstrix_{name}") for name in COMMANDS}
    names = [name for name, value in values.items() if value not in (None, False)]
    if len(names) > 1:
        options = " and ".join(f"--lmstrix-{name}" for name in names)
        raise pytest.UsageError(f"{options} cannot be combined: give one command at a time")
    return names[0] if names else None


def asked_for(config: pytest.Config) -> bool:
    """Return whether `--lmstrix` or the ini key `lmstrix` asks for model tests."""
    return bool(config.option.lmstrix or _ini_value(config, "lmstrix"))


def selects(expression: str, marker: str) -> bool:
    """Return whether `marker` decides a `-m` expression for some set of other markers."""
    names = re.sub(r"[^\s()]*[^\s()\w][^\s()]*", "other", expression)  # such as marker(key=1)
    try:
        tree = ast.parse(names.strip(), mode="eval").body
    except SyntaxError:
        return False  # pytest itself reports it

    def holds(node: ast.expr, present: bool, others: bool) -> bool:
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(holds(part, present, others) for part in node.values)
            case ast.BoolOp():
                return any(holds(part, present, others) for part in node.values)
            case ast.UnaryOp(op=ast.Not()):
                return not holds(node.operand, present, others)
            case ast.Name(id=name) if name == marker:
                return present
            case _:
                return others

    return any(
        holds(tree, True, others) and not holds(tree, False, others) for others in (False, True)
    )


def read_settings(config: pytest.Config) -> Settings:
    """Return the settings of this run.

    Raises:
        pytest.UsageError: A value is not valid; the text names option, value and valid values.
    """
    from pytest_lmstrix.weights.source import with_home  # slow to import

    reports = _path(config, "reports") if _value(config, "reports") else config.rootpath / "reports"
    return Settings(
        models=manifest_path(config),
        registry=_path(config, "registry") if _value(config, "registry") else reports / REGISTRY,
        reports=reports,
        gguf_dirs=tuple(
            Path(_ini_folder(config), with_home(folder)).resolve()
            for folder in config.getini("lmstrix_gguf_dirs")
        ),
        all=config.option.lmstrix_all,
        contexts=_contexts(config),
        hosts=tuple(_hosts(config)),
        engine=_value(config, "engine"),
        llama_server=_program(config, "llama-server"),
        load_timeout=_seconds(config, "load-timeout", lambda s: s > 0),
        reply_timeout=_seconds(config, "reply-timeout", lambda s: s > 0),
        cooldown=_seconds(config, "cooldown", lambda s: s >= 0),
        skip_unfit=config.option.lmstrix_skip_unfit,
        sort=sort_key(config.option.lmstrix_sort, "--lmstrix-sort"),
        fail_on_regression=_percent(config),
    )


def sort_key(text: str, option: str) -> str:
    """Return `text`, one of `SORT_KEYS` with an optional trailing d.

    Raises:
        pytest.UsageError: It is not a valid key.
    """
    if text in SORT_KEYS or (text[-1:] == "d" and text[:-1] in SORT_KEYS):
        return text
    keys = ", ".join(SORT_KEYS)
    raise pytest.UsageError(
        f"{option}: '{text}' is not a valid key; choose from {keys}, with a trailing d to reverse"
    )


def margin_of(config: pytest.Config) -> float:
    """Return the value of `--lmstrix-margin`.

    Raises:
        pytest.UsageError: It is not a percentage.
    """
    margin: float = config.option.lmstrix_margin
    if 0 <= margin < 100:
        return margin
    raise pytest.UsageError(f"--lmstrix-margin: {margin:g} is not a percentage from 0 to below 100")


def _value(config: pytest.Config, name: str) -> Any:
    option = config.getoption(f"lmstrix_{name}")
    if option is not None:
        return option
    return _ini_value(config, f"lmstrix_{_ini(name)}")


def _ini_value(config: pytest.Config, key: str) -> Any:
    try:
        return config.getini(key)
    except (TypeError, ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(f"{config.inipath}: {key}: {error}") from None


def manifest_path(config: pytest.Config) -> Path:
    """The manifest of this run, whether it exists or not."""
    return _path(config, "models")


def _path(config: pytest.Config, name: str) -> Path:
    """Return an absolute path; links are not resolved, as in pytest's node ids."""
    option = config.getoption(f"lmstrix_{name}")
    folder = config.invocation_params.dir if option is not None else _ini_folder(config)
    path = folder / (option if option is not None else config.getini(f"lmstrix_{_ini(name)}"))
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links


def _program(config: pytest.Config, name: str) -> str | None:
    """Return the path of a program, or its name on PATH if it has no folder."""
    given: str = _value(config, name)
    if Path(given).name == given:
        return given or None
    return given if given.startswith("~") else str(_path(config, name))


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.rootpath


def _seconds(config: pytest.Config, name: str, is_valid: Callable[[float], bool]) -> float:
    seconds = _value(config, name)
    if not (is_valid(seconds) and seconds < float("inf")):
        raise pytest.UsageError(f"--lmstrix-{name}: {seconds:g} is not a valid number of seconds")
    return float(seconds)


def _percent(config: pytest.Config) -> float | None:
    text: str | None = config.option.lmstrix_fail_on_regression
    if text is None:
        return None
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1
    if 0 < percent < float("inf"):
        return percent
    raise pytest.UsageError(
        f"--lmstrix-fail-on-regression: '{text}' is not a percentage above 0; write it as in"
        " --lmstrix-fail-on-regression=10, and paths before the option"
    )


def _contexts(config: pytest.Config) -> tuple[int, ...] | None:
    from pytest_lmstrix.core.types import MAX_CONTEXT_LENGTH

    value = _value(config, "ctx")
    texts = [value] if isinstance(value, str) else value
    sizes = []
    for word in (part.strip() for item in texts for part in item.split(",")):
        digits = word.replace("_", "")
        if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= MAX_CONTEXT_LENGTH):
            raise pytest.UsageError(
                f"--lmstrix-ctx: '{word}' is not a context length; write whole numbers of tokens"
                f" from 1 to {MAX_CONTEXT_LENGTH:,}, such as --lmstrix-ctx 8192,16384"
            )
        sizes.append(int(digits))
    return tuple(sorted(set(sizes))) or None


def _hosts(config: pytest.Config) -> list[str]:
    """Return addresses as `host_address` has them, and names of hosts as they are."""
    from pytest_lmstrix.system.addresses import host_address

    given: list[str] = _value(config, "host")
    try:
        return list(dict.fromkeys(host_address(it) if ":" in it else it for it in given))
    except ValueError as error:
        raise pytest.UsageError(f"--lmstrix-host: {error}") from None


def run_hosts(settings: Settings, known: Sequence[Host]) -> tuple[Host, ...]:
    """Return the hosts of a run: those of the settings, or else all that the manifest has.

    Raises:
        pytest.UsageError: A name is not that of a host of the manifest.
    """
    from pytest_lmstrix.manifest.hosts import hosts_of_run

    try:
        return hosts_of_run(settings.hosts, known)
    except ValueError as error:
        raise pytest.UsageError(f"--lmstrix-host: {error}") from None


def with_hosts(settings: Settings, hosts: Sequence[Host]) -> Settings:
    """Return the settings with the addresses of these hosts."""
    return replace(settings, hosts=tuple(host.address for host in hosts))
