"""The earlier results that those of a run are compared with. Pure."""

from __future__ import annotations

from collections import defaultdict, deque

from pytest_lmstrix.core.types import Acceptance, Result
from pytest_lmstrix.core.verdicts import Verdict
from pytest_lmstrix.registry.history.baselines import Baselines
from pytest_lmstrix.registry.history.since import Timelines
from pytest_lmstrix.registry.history.updates import EngineVersions
from pytest_lmstrix.system.addresses import remote_host

MOST_HISTORY = 20
"""Newest results kept as the history of each setup, check and size."""

Key = tuple[object, ...]


class History:
    """The newest earlier results of each setup, check and size; added oldest first."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, dict[Key, deque[tuple[int, Result]]]] = defaultdict(dict)
        self._count = 0
        self._accepted: dict[str, int] = {}
        self.timelines = Timelines()
        self.baselines = Baselines()
        self.versions = EngineVersions()

    def accept(self, acceptance: Acceptance) -> None:
        """Accept the failures and speeds of a model so far as they are."""
        self.timelines.accept(acceptance)
        self.baselines.forget(acceptance.model)
        self._accepted[acceptance.model] = self._count

    def add(self, result: Result) -> None:
        """Add the next result; `host_trouble` withdraws those of its run, check and size.

        Imported results are ignored.
        """
        if result.imported:
            return
        if result.verdict is Verdict.HOST_TROUBLE:
            self._withdraw(result)
            self.timelines.add(result)
        if result.verdict.evidence == "none":
            return
        self._count += 1
        self.timelines.add(result)
        self.baselines.add(result)
        kept = self._kept[result.model]
        recent = kept.setdefault(line_key(result), deque(maxlen=MOST_HISTORY))
        recent.append((self._count, result))

    def _withdraw(self, trouble: Result) -> None:
        kept = self._kept[trouble.model].get(line_key(trouble), deque())
        while kept and kept[-1][1].run == trouble.run:
            kept.pop()

    def of(self, model: str) -> list[Result]:
        """Return the kept results of `model`, oldest first."""
        kept = (pair for recent in self._kept.get(model, {}).values() for pair in recent)
        return [result for _, result in sorted(kept, key=lambda pair: pair[0])]

    def since_accepted(self, model: str) -> list[Result]:
        """Return the kept results of `model` after its last acceptance, oldest first."""
        accepted = self._accepted.get(model, 0)
        kept = (pair for recent in self._kept.get(model, {}).values() for pair in recent)
        newer = sorted((pair for pair in kept if pair[0] > accepted), key=lambda pair: pair[0])
        return [result for _, result in newer]


def setup_of(result: Result) -> Key:
    """Return the engine, the remote host and the machine."""
    return result.engine, remote_host(result.host), result.machine


def line_key(result: Result) -> Key:
    """Return what a result shares with others that repeat it."""
    return (*setup_of(result), result.engine_version, result.fingerprint, result.settings,
            result.check, result.check_version, result.context_length)  # fmt: skip


def same_weights(one: Result, other: Result) -> bool:
    """Unknown weights may be the same, but cannot show that the known ones work."""
    return one.fingerprint == other.fingerprint or any(
        result.fingerprint is None and result.verdict.evidence != "good" for result in (one, other)
    )


def are_alike(old: Result, new: Result) -> bool:
    """Whether both tested the same weights and settings with the same check at the same size."""
    return same_weights(old, new) and (
        (old.settings, old.check, old.check_version, old.context_length)
        == (new.settings, new.check, new.check_version, new.context_length)
    )
