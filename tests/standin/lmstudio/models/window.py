"""A window that the long prompts of requests at once share."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier, BrokenBarrierError

from tests.standin.lmstudio import errors
from tests.standin.lmstudio.errors import Refused, ServerError
from tests.standin.lmstudio.models.behaviours import SharesWindow
from tests.standin.lmstudio.models.model import StandInModel


def window_of(model: StandInModel, context_length: int) -> Window | None:
    shares = next((b for b in model.behaviours if isinstance(b, SharesWindow)), None)
    return shares and Window(shares, context_length)


class Window:
    """What long prompts share; each of them waits for the others, who have to come at once."""

    def __init__(self, shares: SharesWindow, context_length: int) -> None:
        self._shares = shares
        self._context_length = context_length
        self._all_here = Barrier(shares.slots, timeout=10)
        self.held = 0
        """Tokens of all prompts that are there."""

    def taken(self, prompt: Sequence[str]) -> Sequence[str]:
        """Return as much of `prompt` as is read.

        Raises:
            Refused: They are too long together, or one comes alone.
        """
        if len(prompt) <= self._context_length // 2:
            return prompt
        self.held += len(prompt)
        try:
            self._all_here.wait()
            room = int(self._shares.windows * self._context_length)
            fits = self.held <= room
            self._all_here.wait()
        except BrokenBarrierError:
            raise Refused(ServerError(title="not all requests came at once")) from None
        self.held = 0
        if fits:
            return prompt
        if self._shares.cuts:
            return prompt[-(room // self._shares.slots) :]
        raise Refused(errors.context_exceeded())
