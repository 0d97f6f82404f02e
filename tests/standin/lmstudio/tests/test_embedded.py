"""A stand-in model that answers with a real llama.cpp."""

from __future__ import annotations

from pathlib import Path

import lmstudio
import pytest

from tests.standin.lmstudio import Embedded, LmStudioServer, StandInModel
from tests.standin.lmstudio.tests.conftest import Connect
from tests.standin.weights import smollm2

pytest.importorskip("xllamacpp")


def test_a_real_model_behind_the_protocol(connect: Connect, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not GGUF at all")
    models = [
        StandInModel(key="real", behaviours=(Embedded(path=str(smollm2())),)),
        StandInModel(key="broken", behaviours=(Embedded(path=str(broken)),)),
    ]
    with LmStudioServer(models) as server:
        llm = connect(server.host).llm
        with pytest.raises(lmstudio.LMStudioServerError, match="Failed to load model"):
            llm.load_new_instance("broken")
        real = llm.load_new_instance("real", "mine", config={"contextLength": 512})
        assert real.get_context_length() == 512
        prompt = "The captain is called Marlow. The grass is green. The captain is called"
        config: lmstudio.LlmPredictionConfigDict = {"maxTokens": 6, "temperature": 0.0}
        reply = real.complete(prompt, config=config)
        assert "Marlow" in reply.content
        assert reply.stats.prompt_tokens_count == real.count_tokens(prompt)
        assert real.respond("Say hello", config=config).content
        with pytest.raises(lmstudio.LMStudioServerError, match="n_keep"):
            real.complete("word " * 600, config=config)
        real.unload()
        assert server.loaded() == ()
        assert server.violations == []
