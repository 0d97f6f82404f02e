"""The exception for every verdict other than `ok`."""

from __future__ import annotations

from pytest_lmstrix.core.classify import classify
from pytest_lmstrix.core.sanitize import clean
from pytest_lmstrix.core.types import ProbeResult
from pytest_lmstrix.core.verdicts import Phase, Verdict

MESSAGE_LIMIT = 2_000
"""Longest engine text in a message, in characters."""
DID_YOU_MEAN = "did you mean"
"""How the line of a message that names similar ids begins."""
LOG_LINE = "log: "
"""How the line of a message that names a log begins."""


class Failure(Exception):
    """A verdict other than `ok`, with the engine's own words.

    Checks raise it with their verdict; engines leave the verdict to `Failure.from_engine`.
    """

    def __init__(
        self,
        text: str,
        *,
        verdict: Verdict,
        phase: Phase | None = None,
        code: str | None = None,
        exit_status: int | None = None,
        final: bool = False,
        only_this_model: bool = False,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.verdict = verdict
        self.phase = phase
        self.code = code
        self.exit_status = exit_status
        self.final = final
        """Whether another attempt ends the same way, such as with a token that is refused."""
        self.only_this_model = only_this_model
        """Whether the host is otherwise well, such as where another client uses the model."""
        self.host = ""
        """Where it happened, if the words do not name it and it is not this machine."""
        self.advice: str | None = None
        """Remedy in one line; `None` for that of the verdict."""
        self.retried = False
        """Whether the attempt that failed was a retry."""

    @classmethod
    def from_engine(
        cls,
        text: str,
        *,
        phase: Phase | None = None,
        code: str | None = None,
        exit_status: int | None = None,
    ) -> Failure:
        """Classify an engine's error by its text, structured code, exit status and phase."""
        verdict = classify(text, phase=phase, code=code, exit_status=exit_status)
        return cls(text, verdict=verdict, phase=phase, code=code, exit_status=exit_status)

    def as_finding(self) -> ProbeResult:
        """Return it as the result of a probe."""
        return ProbeResult(
            verdict=self.verdict, detail=self.text, only_this_model=self.only_this_model
        )

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the verdict, the engine's sanitized words and the advice, for a person."""
        words = clean(self.text.strip(), MESSAGE_LIMIT)
        if self.exit_status is not None:
            words = f"{words} (exit status {self.exit_status})".lstrip()
        advice = self.verdict.advice if self.advice is None else self.advice
        if self.final:
            advice = ""  # the words name the fix
        verdict = f"{self.verdict} on {clean(self.host)}" if self.host else str(self.verdict)
        lines = [f"{verdict}: {words}" if words else verdict, advice]
        return "\n".join(line for line in lines if line)
