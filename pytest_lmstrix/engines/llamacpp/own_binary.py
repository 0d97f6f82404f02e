"""The engine `llama-server`: the user's own build of llama.cpp, with their GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import psutil

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import LoadSettings, Model, ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.llamacpp import child as child_program
from pytest_lmstrix.engines.llamacpp.arguments import EmbeddingLoad, serve_arguments
from pytest_lmstrix.engines.llamacpp.binary import Binary, environment
from pytest_lmstrix.engines.llamacpp.engine import ChildEngine

_OWNER = "LMSTRIX_OWNER"
"""Environment variable of a server that names the process that has started it."""
_KILL_SECONDS = 30.0


class LlamaServerEngine(ChildEngine):
    """A `llama-server` program, started for every load."""

    name = "llama-server"
    _unknown_settings: ClassVar[Mapping[str, str]] = {
        "gpu_offload": "'gpu_layers' is the number of layers to keep on the GPU",
    }

    def __init__(
        self,
        program: str | None = None,
        *,
        load_timeout: float = 600.0,
        reply_timeout: float = 120.0,
        weights: Callable[[Model], Path] | None = None,
        folders: Iterable[Path] | None = None,
        logs: Path | None = None,
        owner: str | None = None,
    ) -> None:
        """`program` is its path or name, see `Binary`; of the others see `ChildEngine`.

        `owner` identifies the process for `sweep`.
        """
        super().__init__(
            load_timeout=load_timeout,
            reply_timeout=reply_timeout,
            weights=weights,
            folders=folders,
            logs=logs,
        )
        self._binary = Binary(program)
        self._owner = owner

    @cached_property
    def version(self) -> str:
        """Build and commit of the program.

        Raises:
            Failure: There is no such program.
        """
        return self._binary.version

    def models(self) -> list[ModelFacts]:
        """Return every model file in the usual places.

        Raises:
            Failure: There is no program that could load them.
        """
        assert self._binary.flags
        return super().models()

    def sweep(self, is_dead: Callable[[str], bool]) -> list[str]:
        """End the servers whose `is_dead(owner)` is true; return the ids of their processes.

        They end with their owner, unless their supervisor was killed as well.

        Raises:
            Failure: One of them does not end.
        """
        ours = [each for each in psutil.process_iter() if _is_left(each, is_dead)]
        for process in ours:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            except psutil.Error as error:
                raise _survives(process) from error
        _, alive = psutil.wait_procs(ours, timeout=_KILL_SECONDS)
        if alive:
            raise _survives(alive[0])
        return [str(process.pid) for process in ours]

    def _check_host(self, model: Model) -> None:
        flags, devices = self._binary.flags, self._binary.devices
        assert flags
        if model.load.gpu_layers and devices is not None and not devices:
            raise Failure.from_engine(
                f"gpu_layers: {model.load.gpu_layers}, but llama-server finds no GPU here",
                phase="load",
            )

    def _configuration(
        self,
        path: Path,
        context_length: int,
        load: LoadSettings,
        *,
        api_key: str,
        replace_chat_template: bool,
        embedding: EmbeddingLoad | None,
    ) -> Mapping[str, object]:
        arguments = serve_arguments(
            path,
            context_length,
            load,
            self._binary.flags,
            gpu=bool(self._binary.devices) and load.gpu_layers != 0,
            replace_chat_template=replace_chat_template,
            embedding=embedding,
        )
        marks = {"LLAMA_API_KEY": api_key}
        if self._owner is not None:
            marks[_OWNER] = self._owner
        return child_program.command_configuration(
            [str(self._binary.path), *arguments], environment(**marks)
        )

    def _notes(self, load: LoadSettings) -> tuple[str, ...]:
        devices = self._binary.devices
        if devices is None:
            return ()
        if not devices or load.gpu_layers == 0:
            return ("device: CPU",)
        names = (f"{name} ({device})" for device, name in devices.items())
        return (f"device: {', '.join(names)}",)


def _is_left(process: psutil.Process, is_dead: Callable[[str], bool]) -> bool:
    try:
        owner = process.environ().get(_OWNER)
    except (psutil.Error, OSError):
        return False  # another user's, or none of an ordinary process
    return owner is not None and is_dead(owner)


def _survives(process: psutil.Process) -> Failure:
    text = f"llama-server of an earlier run does not end: process {process.pid}"
    return Failure(text, verdict=Verdict.HOST_TROUBLE, phase="unload")
