"""The mind of an instance: made in a moment, or a real llama.cpp that has to start."""

from __future__ import annotations

from tests.support.lmstudio_server.minds import Mind, StandInMind
from tests.support.lmstudio_server.models import StandInModel


async def load_mind(model: StandInModel, context_length: int) -> Mind:
    """What an instance of `model` thinks with, with the context that it is granted."""
    return StandInMind(model, model.grant(context_length))
