"""What each version of LM Studio knows of load and prediction settings; it drops the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tests.standin.lmstudio.models.behaviours import Behaviour, SharesContext

NEW_KEYS: dict[str, tuple[int, int, int]] = {
    "llm.load.numParallelSessions": (0, 4, 0),
    "llm.load.useUnifiedKvCache": (0, 4, 0),
    "llm.load.mlx.kvCacheQuantization": (0, 4, 0),
    "llm.load.llama.autoFit": (0, 4, 20),
    "llm.load.mlx.autoFit": (0, 4, 20),
    "llm.load.yuzu.autoFit": (0, 4, 20),
    "llm.prediction.seed": (0, 3, 0),
    "llm.prediction.reasoning.enableThinking": (0, 4, 12),
    "llm.prediction.reasoning.budgetTokens": (0, 4, 12),
}
"""Settings that the SDK does not know -> the first version that does."""
DEFAULTS: dict[str, Any] = {
    "llm.load.numParallelSessions": 4,
    "llm.load.useUnifiedKvCache": True,
    "llm.load.llama.autoFit": True,
    "llm.load.mlx.autoFit": True,
}


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version such as `0.4.12`."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def is_known(key: str, version: str) -> bool:
    """Whether this version has a setting of that name."""
    return version_numbers(version) >= NEW_KEYS.get(key, (0, 0, 0))


def in_force(asked: dict[str, Any], version: str, *, mlx: bool) -> dict[str, Any]:
    """The settings of a load, as the server holds them: the runtime's own, defaults filled in."""
    other = "llm.load.llama." if mlx else "llm.load.mlx."
    settings = {key: value for key, value in DEFAULTS.items() if is_known(key, version)} | {
        key: value for key, value in asked.items() if is_known(key, version)
    }
    return {key: value for key, value in settings.items() if not key.startswith(other)}


def fits_by_itself(settings: dict[str, Any]) -> bool:
    """Whether the context is fitted to the machine whatever is requested."""
    return any(settings.get(f"llm.load.{runtime}.autoFit") is True for runtime in ("llama", "mlx"))


def slots(settings: dict[str, Any], behaviours: Iterable[Behaviour]) -> int:
    """How many requests divide the context of a load with these settings in force."""
    for behaviour in behaviours:
        if isinstance(behaviour, SharesContext):
            return behaviour.slots
    unified = settings.get("llm.load.useUnifiedKvCache", True)
    return 1 if unified else int(settings.get("llm.load.numParallelSessions", 1))
