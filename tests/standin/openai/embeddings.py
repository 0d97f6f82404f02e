"""The answer of `/v1/embeddings`."""

from __future__ import annotations

from typing import Any

from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.models.minds import embed
from tests.standin.lmstudio.models.model import StandInModel
from tests.standin.openai.quirks import Faults


def embeddings(
    model: StandInModel, context_length: int, body: dict[str, Any], faults: Faults
) -> tuple[int, dict[str, Any]]:
    """Return status and answer, whose vectors are in no order but that of `index`."""
    try:
        found = [embed(model, text, context_length) for text in body["input"]]
    except Refused as refused:
        return 400, {"error": {"message": refused.error.title, "code": "BadRequestError"}}
    data = [{"object": "embedding", "index": index, "embedding": vector}
            for index, (vector, _) in reversed([*enumerate(found)])]  # fmt: skip
    usage = {"prompt_tokens": sum(tokens for _, tokens in found)}
    answer = {"object": "list", "data": data, "model": body["model"]}
    return 200, answer if faults.no_usage else {**answer, "usage": usage}
