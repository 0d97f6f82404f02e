"""How a stand-in Ollama deviates from a healthy server of its release."""

from __future__ import annotations

from msgspec import Struct

from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.behaviours import Behaviour

WORDS = {
    "OutOfMemory": "model requires more system memory (5.5 GiB) than is available (3.4 GiB)",
    "Corrupted": "llama-server process has terminated: exit status 1: error loading model:"
    " missing tensor 'output_norm'",
    "Crashes": "llama-server process has terminated: exit status 2",
    "CrashesAbove": "llama-server process has terminated: exit status 2",
    "Unsupported": "llama-server process has terminated: exit status 1: error loading model:"
    " unknown model architecture: 'mllama'",
}
"""Behaviour -> Ollama's text for a load that it fails."""

RUNNER_GONE = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal"
    " error, check ollama server logs for details"
)

RUNNER_GONE_IN_STREAM = "an error was encountered while running the model: unexpected EOF"
OTHER = "something went wrong"


class Quirks(Struct, frozen=True, kw_only=True):
    """Deviations of a server; the default has none."""

    release: tuple[int, int, int] = (0, 33, 0)
    vram_share: float = 1.0
    """Share of each model that is in the GPU's memory."""
    grants_half: bool = False
    """Whether a load gets half of `num_ctx`."""
    reports_asked: bool = False
    """Whether `/api/ps` reports what was asked for instead of what was granted."""
    load_seconds: float = 0.0
    aborts_loads: bool = True
    """Whether a load ends when its client disconnects."""
    unload_seconds: float = 0.0
    """How long a model stays listed after its unload was accepted."""
    max_loaded: int = 3
    error_after: int | None = None
    """The pieces of a reply after which it ends with a line that holds an error."""
    lost_after: int | None = None
    """The pieces of a reply after which the connection is closed."""
    frozen_after: int | None = None
    """The pieces of a reply after which nothing more comes."""
    unfinished: bool = False
    """Whether replies end without a last line."""
    busy: bool = False
    """Whether its queue is full."""

    @property
    def version(self) -> str:
        return ".".join(map(str, self.release))


class OllamaError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def load_error(behaviour: Behaviour, refused: Refused) -> OllamaError:
    """Return Ollama's error for a load that `behaviour` fails."""
    name = type(behaviour).__name__
    return OllamaError(500, WORDS.get(name, refused.error.title))
