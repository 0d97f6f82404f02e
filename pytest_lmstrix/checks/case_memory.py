"""The memory that the cases of a run need, beside the memory that this machine has."""

from __future__ import annotations

from collections.abc import Callable, Collection

import psutil
from msgspec.structs import replace

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.memory import MachineMemory, Needs, total_of
from pytest_lmstrix.core.types import Case
from pytest_lmstrix.plan.memory import MemoryEstimator, largest_context

_MIB = 1024 * 1024


class CaseMemory:
    """Estimates of cases that llama.cpp runs; nothing is known of others."""

    def __init__(
        self,
        estimator: MemoryEstimator,
        *,
        registered: Collection[str] = (),
        read_machine: Callable[[str], MachineMemory],
    ) -> None:
        """`registered` are the names of engines that are not llama.cpp, whatever their name.

        `read_machine` returns the memory that an engine finds.
        """
        self._estimator = estimator
        self._engines = {"llamacpp", "llama-server"}.difference(registered)
        self._read_machine = read_machine
        self._machines: dict[str, MachineMemory] = {}

    def needs(self, case: Case, *, fetch: bool = False) -> Needs | None:
        """Return the memory that `case` needs; `None` if unknown.

        The header of remote weights is fetched only if `fetch`.
        """
        if case.model.engine not in self._engines:
            return None
        try:
            path = self._estimator.file(case.model, fetch=fetch)
            return self._estimator.estimate(
                path, case.model.load, case.context_length, engine=case.model.engine
            )
        except (Failure, OSError, ValueError):
            return None  # the load itself raises the reason

    def total_bytes(self, case: Case) -> int | None:
        needs = self.needs(case)
        return None if needs is None else total_of(needs)

    def largest_context(self, case: Case) -> int | None:
        """Return the largest context length below that of `case` that fits; `None` if unknown."""
        machine = self._memory(case) if self.needs(case) else None
        if machine is None:
            return None
        limit = case.context_length

        def estimate(size: int) -> Needs:
            return self._estimator.estimate(path, case.model.load, size, engine=case.model.engine)

        try:
            path = self._estimator.file(case.model, fetch=False)
            found = largest_context(estimate, machine, limit=limit, known={})
        except (Failure, OSError, ValueError):
            return None
        return found if found is not None and found < limit else None

    def why_unfit(self, case: Case) -> str | None:
        """Return why `case` cannot fit, with the numbers; `None` if it fits or is unknown."""
        needs = self.needs(case, fetch=True)
        machine = self._memory(case) if needs else None
        if needs is None or machine is None or machine.fits(needs):
            return None
        return f"does not fit: {_beside(needs, machine)}"

    def shortage(self, case: Case) -> str | None:
        """Return what `case` would need and what is free; `None` if unknown."""
        needs = self.needs(case)
        machine = self._memory(case) if needs else None
        if needs is None or machine is None:
            return None
        return f"llama.cpp's dry run: {_beside(needs, machine)}"

    def _memory(self, case: Case) -> MachineMemory | None:
        engine = case.model.engine
        machine = self._machines.get(engine)
        try:
            if machine is None or machine.devices:
                machine = self._machines[engine] = self._read_machine(engine)
        except (Failure, OSError):
            return None
        # Without a GPU only the memory of the host changes, which is cheap to read.
        return replace(machine, available_bytes=psutil.virtual_memory().available)


def _beside(needs: Needs, machine: MachineMemory) -> str:
    """`needs 2,000 MiB of 1,500 MiB free`, for the host and each GPU."""
    parts: dict[str, int] = {}
    for need in needs:
        device = machine.device(need.name)
        name = device.name if device is not None else ""
        parts[name] = parts.get(name, 0) + need.total_bytes
    return ", ".join(
        f"needs {size // _MIB:,} MiB{f' of {name}' if name else ''},"
        f" {machine.free_bytes(name) // _MIB:,} MiB free"
        for name, size in parts.items()
    )
