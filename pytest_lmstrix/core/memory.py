"""The memory that a load needs, and the memory that the machine has; all sizes in bytes."""

from __future__ import annotations

from msgspec import Struct


class DeviceNeed(Struct, frozen=True, kw_only=True):
    """The memory that a load takes of one device."""

    name: str
    """As the engine names it, such as `Host` or `CUDA0 (NVIDIA GeForce RTX 4090)`."""
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    total_bytes: int


Needs = tuple[DeviceNeed, ...]
"""The memory of a load: a row for each device, and for each kind of buffer on the host."""


class Device(Struct, frozen=True, kw_only=True):
    """A device for computing besides the processor, such as a GPU."""

    name: str
    total_bytes: int
    free_bytes: int
    shares_host_memory: bool = False


class MachineMemory(Struct, frozen=True, kw_only=True):
    """The memory of this machine at one moment."""

    total_bytes: int
    available_bytes: int
    devices: tuple[Device, ...] = ()

    def device(self, name: str) -> Device | None:
        """Return the device with memory of its own that `name` begins with."""
        return next((each for each in self.devices if each.name == name.partition(" (")[0]), None)

    def free_bytes(self, name: str) -> int:
        """Return the free memory for what the engine places on the device `name`."""
        device = self.device(name)
        return self.available_bytes if device is None else device.free_bytes

    def spare_bytes(self, needs: Needs) -> int:
        """Return what stays free of the fullest device beside `needs`; negative if too little."""
        spare: dict[str | None, int] = {None: self.available_bytes}
        spare |= {each.name: each.free_bytes for each in self.devices}
        for need in needs:
            device = self.device(need.name)
            if device is not None:
                spare[device.name] -= need.total_bytes
            if device is None or device.shares_host_memory:
                spare[None] -= need.total_bytes
        return min(spare.values())

    def fits(self, needs: Needs) -> bool:
        """Return whether every device has enough free memory for its part of `needs`."""
        return self.spare_bytes(needs) >= 0


def total_of(needs: Needs) -> int:
    return sum(need.total_bytes for need in needs)
