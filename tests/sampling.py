"""Samples of parametrized tests: a few run always, the others only with LMSTRIX_TEST_LONG=1."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import pytest


def few_of(values: Iterable[Any], quick: int) -> list[Any]:
    """Return `values`, those after the first `quick` with the mark `long`."""
    rest = iter(values)
    return [*islice(rest, quick), *(pytest.param(each, marks=pytest.mark.long) for each in rest)]
