"""A watch and a progress that show nothing."""

from __future__ import annotations


class Silent:
    """A `Watch` and a `Progress` that show nothing."""

    def loading(self, model_id: str, context_length: int) -> Silent:
        return self

    def waiting(self, host: str, holder: str) -> None:
        pass

    def idle(self) -> None:
        pass

    def __call__(self, fraction: float, /) -> None:
        pass

    def prefill(self, done: int, total: int) -> None:
        pass
