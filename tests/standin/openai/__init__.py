"""Stand-ins for OpenAI-compatible servers: the dialects of real ones, and their faults.

>>> with OpenAiServer(StandInModel(key="tiny"), 4096, Dialect.VLLM) as server:
...     httpx.get(f"{server.url}/v1/models")
"""

from tests.standin.openai.quirks import Dialect, Faults
from tests.standin.openai.server import OpenAiServer

__all__ = ["Dialect", "Faults", "OpenAiServer"]
