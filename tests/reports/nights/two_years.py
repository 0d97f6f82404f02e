"""Registries of two years of nights, and what is true of each model by construction.

Each model follows a script of periods in which it works or fails. The truth is read off the
script, independently of how the registry finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Literal

from pytest_lmstrix.core.types import Acceptance, Result
from tests.registry.results import a_result

NIGHTS = 730
UPDATE = 45
"""Nights from one engine version to the next."""
SIZE = 8192
MACHINE = "0123456789ab"
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
BAD = ("crashed", "out_of_memory", "recall_failed", "model_not_found", "corrupted", "timeout")
NOISE = ("host_trouble", "unreachable", "inconclusive")
"""Verdicts that are not about the model."""


@dataclass
class Truth:
    """What the reports should say of a model."""

    model: str
    state: Literal["works", "broken", "never_worked"]
    began: tuple[date, str]
    """Date and engine version of the first result of the state."""
    last_good: tuple[date, str] | None
    flaps: int
    accepted: tuple[date, str] | None
    """Date and user."""
    verdicts: dict[date, str]
    """Night -> its verdict, nights without a test left out."""

    def sentence(self, today: date) -> str:
        """Return what people read, put together without the plugin."""
        began = f"{self.began[1]} ({day(self.began[0], today)})"
        if self.state == "works":
            text = f"Works since {began}"
        elif self.last_good is None:
            text = f"Never worked, tested since {began}"
        elif self.last_good[1] != self.began[1]:
            text = f"Worked with {self.last_good[1]}, broken since {began}"
        else:
            text = f"Worked until {day(self.last_good[0], today)}, broken since {began}"
        if self.flaps >= 3:
            text += f"; changed {self.flaps} times"
        if self.accepted is not None:
            text += f"; accepted by {self.accepted[1]} ({day(self.accepted[0], today)})"
        return text

    def cell(self) -> str:
        """Return the cell in a list."""
        return f"{self.state.replace('_', ' ')} {self.began[0]} ({self.began[1]})"


def day(at: date, today: date) -> str:
    year = "" if at.year == today.year else f" {at.year}"
    return f"{at.day} {MONTHS[at.month - 1]}{year}"


@dataclass
class Model:
    """The script of a model."""

    name: str
    works: list[bool]
    """By night."""
    verdict: str
    """While it fails."""
    accepted: dict[int, str] = field(default_factory=dict)
    """Night -> the user who accepts the failures after its run."""
    untested: frozenset[int] = frozenset()
    noisy: frozenset[int] = frozenset()
    """Nights in which only the host is at fault."""

    def truth(self, start: date) -> Truth:
        tested = [n for n in range(len(self.works)) if n not in self.untested | self.noisy]
        last = tested[-1]
        works = self.works[last]
        began = next(
            first for first in tested if all(self.works[n] is works for n in tested if n >= first)
        )
        good = [n for n in tested if self.works[n]]
        when = [n for n in self.accepted if n >= began]
        accepted = None
        if when and not works:
            accepted = start + timedelta(days=max(when)), self.accepted[max(when)]

        def moment(night: int) -> tuple[date, str]:
            return start + timedelta(days=night), version_of(night)

        return Truth(
            model=self.name,
            state="works" if works else "broken" if good else "never_worked",
            began=moment(began),
            last_good=moment(good[-1]) if good else None,
            flaps=sum(self.works[one] is not self.works[two] for one, two in pairwise(tested)),
            accepted=accepted,
            verdicts={
                start + timedelta(days=n): "ok" if self.works[n] else self.verdict for n in tested
            },
        )


def version_of(night: int) -> str:
    return f"0.4.{night // UPDATE}"


def scripted(nights: int = NIGHTS) -> list[Model]:
    """Return one model of each kind."""
    update = nights - nights % UPDATE - UPDATE
    """A night with a new engine version."""
    flapping = [n < 40 or (n // 9) % 2 == 0 for n in range(nights)]
    again = [not nights - 50 <= n < nights - 20 for n in range(nights)]
    return [
        Model("steady", [True] * nights, "crashed"),
        Model("hopeless", [False] * nights, "corrupted"),
        Model("broken-by-an-update", [n < update for n in range(nights)], "out_of_memory"),
        Model("broken-in-between", [n < update + 7 for n in range(nights)], "crashed"),
        Model("broken-last-night", [n < nights - 1 for n in range(nights)], "recall_failed"),
        Model("works-again", again, "timeout"),
        Model("flapping", flapping, "recall_failed"),
        Model("accepted", [n < update for n in range(nights)], "crashed",
              accepted={update + 3: "ada"}),
        Model("accepted-and-repaired", again, "crashed", accepted={nights - 45: "ada"}),
        Model("accepted-but-broken-anew", [*again[:-3], False, False, False], "crashed",
              accepted={nights - 45: "ada"}),
        Model("lost", [n < nights - 12 for n in range(nights)], "model_not_found"),
        Model("on-an-unsteady-host", [n < nights - 12 for n in range(nights)], "crashed",
              noisy=frozenset(range(nights - 20, nights - 5, 2)),
              untested=frozenset(range(nights - 19, nights - 5, 4))),
    ]  # fmt: skip


def random_models(seed: int, nights: int = NIGHTS, count: int = 8) -> list[Model]:
    """Return models with random scripts."""
    random = Random(seed)
    models = []
    for number in range(count):
        works: list[bool] = []
        state = random.random() < 0.8
        while len(works) < nights:
            works += [state] * random.choice((1, 2, 7, 30, 200, 700))
            state = not state
        chosen = [n for n in range(nights) if random.random() < 0.03]
        models.append(Model(
            f"model-{number}", works[:nights], random.choice(BAD),
            accepted={random.randrange(nights): "ada" for _ in range(random.randrange(3))},
            untested=frozenset(n for n in chosen if n % 2 and n != nights - 1),
            noisy=frozenset(n for n in chosen if not n % 2 and n != nights - 1),
        ))  # fmt: skip
    return models


def lines(models: list[Model], start: date, **fields: object) -> Iterator[Result | Acceptance]:
    """Yield the lines of a registry, in the order of the file."""
    for night in range(max(len(model.works) for model in models)):
        at = datetime(start.year, start.month, start.day, 3, tzinfo=UTC) + timedelta(days=night)
        for model in models:
            if night in model.untested:
                continue
            verdict = "ok" if model.works[night] else model.verdict
            if night in model.noisy:
                verdict = NOISE[night % len(NOISE)]
            known = verdict not in ("model_not_found", "unreachable")
            of_model: dict[str, object] = {
                "model": model.name, "machine": MACHINE, "run": f"night-{night}", "at": at,
                "engine_version": version_of(night),
                "fingerprint": "size:1" if known else None, **fields,
            }  # fmt: skip
            yield a_result(SIZE, verdict, **of_model)
            if model.works[night]:  # searches and users' checks do not count
                yield a_result(2 * SIZE, "crashed", origin="search", **of_model)
        yield from (
            Acceptance(at=at + timedelta(hours=6), by=model.accepted[night], model=model.name)
            for model in models
            if night in model.accepted
        )
