"""A stand-in server of Ollama, an engine for it, and loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_lmstrix.core.types import Model
from pytest_lmstrix.engines.ollama.engine import OllamaEngine
from pytest_lmstrix.engines.ollama.instance import OllamaInstance
from tests.standin.lmstudio import StandInModel
from tests.standin.ollama import OllamaServer, Quirks

TINY = StandInModel(key="tiny:latest", max_context_length=8192)
MODEL = Model(id="tiny", engine="ollama")
PROMPT = "1 + 1 = 2\n4 + 4 = 8\n2 + 3 ="
STORY = "The miller went down to the river. He had lost his key. "


class Ignored:
    """A `Progress` that ignores every report."""

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass


def load(engine: OllamaEngine, size: int = 1024, model: Model = MODEL) -> OllamaInstance:
    return engine.load(model, size, Ignored())


@contextmanager
def running(
    quirks: Quirks | None = None,
    *models: StandInModel,
    notes: Path | None = None,
    load_timeout: float = 30.0,
    reply_timeout: float = 30.0,
    owner: str = "me",
) -> Iterator[tuple[OllamaServer, OllamaEngine]]:
    """A stand-in server and an engine for it."""
    with ExitStack() as cleanup:
        server = cleanup.enter_context(OllamaServer(models or [TINY], quirks))
        engine = OllamaEngine(
            server.host,
            load_timeout=load_timeout,
            reply_timeout=reply_timeout,
            owner=owner,
            confirm_seconds=1.0,
            notes=notes,
        )
        cleanup.callback(engine.close)
        yield server, engine
