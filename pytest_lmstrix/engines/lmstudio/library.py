"""The models that a server has, from one listing per session."""

from __future__ import annotations

import logging

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.types import ModelFacts
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.engines.lmstudio import endpoints
from pytest_lmstrix.engines.lmstudio.connection import Link
from pytest_lmstrix.engines.lmstudio.listing import ListedModel, read_listing

_log = logging.getLogger(__name__)


class Library:
    """The models on the disks of the server behind `link`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._found: dict[str, ListedModel] | None = None
        self._lists_variants = True

    def models(self) -> list[ModelFacts]:
        """Return every model, embedding models included, as the server lists them now.

        Raises:
            Failure: The server does not answer.
        """
        listing = self._link.ask(
            lambda client: client.system.remote_call("listDownloadedModels"),
            phase="connect",
            doing="listing the models",
            namespace="system",
        )
        if not isinstance(listing, list):
            text = f"LM Studio answered the listing of its models with {listing!r:.200}"
            raise Failure(text, verdict=Verdict.UNREACHABLE, phase="connect")
        found = read_listing(listing, self._variants_of)
        self._found = {model.facts.id: model for model in found}
        return [model.facts for model in found]

    def find(self, id_: str) -> ListedModel | None:
        """Return a model or a variant of one, or `None` if the server does not list it."""
        if self._found is None:
            self._found = {}  # an unreachable server is not asked again for each model
            self.models()
        return self._found.get(id_)

    def _variants_of(self, key: str) -> list[object]:
        """Return the raw listing of a model's variants; empty if the server does not answer."""
        if not self._lists_variants:
            return []
        try:
            listing = self._link.ask(
                lambda client: endpoints.variants(client, key),
                phase="connect",
                doing=f"listing the variants of {key}",
                namespace="system",
            )
        except Failure as failure:
            _log.warning("LM Studio does not list the variants of %s: %s", key, failure.text)
            self._lists_variants = False
            return []
        return listing if isinstance(listing, list) else []
