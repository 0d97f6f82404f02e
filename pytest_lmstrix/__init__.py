"""A pytest plugin that treats local LLM models as test cases.

The public API: the registry for reading, and the types for third-party engines and checks. Each
name is imported on first access. `pytest_lmstrix.testing` has the tests of an engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_lmstrix.checks.requests.checked_reply import CheckedReply
    from pytest_lmstrix.checks.requests.embedding import EmbeddingModel
    from pytest_lmstrix.checks.requests.loaded import LoadedModel
    from pytest_lmstrix.core.classify import classify
    from pytest_lmstrix.core.failure import Failure
    from pytest_lmstrix.core.types import (
        LoadSettings,
        Message,
        Model,
        ModelFacts,
        Reply,
        Result,
        ToolCall,
    )
    from pytest_lmstrix.core.verdicts import Verdict
    from pytest_lmstrix.engines.base import (
        Closes,
        Embeds,
        Engine,
        EngineOptions,
        Fetches,
        Instance,
        ListsOthers,
        Progress,
        ReportsFacts,
        Sweeps,
        Weights,
    )
    from pytest_lmstrix.engines.request import Embeddings, Image, Tool, Unable
    from pytest_lmstrix.registry.history.since import Since
    from pytest_lmstrix.registry.store import (
        ModelStatus,
        Recommendation,
        Registry,
        RegistryError,
    )

__all__ = [
    "CheckedReply",
    "Closes",
    "EmbeddingModel",
    "Embeddings",
    "Embeds",
    "Engine",
    "EngineOptions",
    "Failure",
    "Fetches",
    "Image",
    "Instance",
    "ListsOthers",
    "LoadSettings",
    "LoadedModel",
    "Message",
    "Model",
    "ModelFacts",
    "ModelStatus",
    "Progress",
    "Recommendation",
    "Registry",
    "RegistryError",
    "Reply",
    "ReportsFacts",
    "Result",
    "Since",
    "Sweeps",
    "Tool",
    "ToolCall",
    "Unable",
    "Verdict",
    "Weights",
    "classify",
]

_HOMES = {
    "engines.base": (
        "Closes",
        "Embeds",
        "Engine",
        "EngineOptions",
        "Fetches",
        "Instance",
        "ListsOthers",
        "Progress",
        "ReportsFacts",
        "Sweeps",
        "Weights",
    ),
    "engines.request": ("Embeddings", "Image", "Tool", "Unable"),
    "checks.requests.checked_reply": ("CheckedReply",),
    "checks.requests.embedding": ("EmbeddingModel",),
    "checks.requests.loaded": ("LoadedModel",),
    "registry.store": ("ModelStatus", "Recommendation", "Registry", "RegistryError"),
    "registry.history.since": ("Since",),
    "core.types": ("LoadSettings", "Message", "Model", "ModelFacts", "Reply", "Result", "ToolCall"),
    "core.verdicts": ("Verdict",),
    "core.failure": ("Failure",),
    "core.classify": ("classify",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
