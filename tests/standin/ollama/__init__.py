"""A stand-in Ollama: its HTTP interface on a loopback port, with the deviations of real releases.

>>> with OllamaServer([StandInModel(key="tiny:latest")]) as server:
...     httpx.get(f"http://{server.address}/api/tags")
"""

from tests.standin.ollama.quirks import Quirks
from tests.standin.ollama.server import OllamaServer

__all__ = ["OllamaServer", "Quirks"]
