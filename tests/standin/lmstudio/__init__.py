"""A stand-in LM Studio: the real protocol on a loopback port, for the unmodified SDK.

>>> with LmStudioServer([StandInModel(key="tiny")]) as server:
...     client = lmstudio.Client(server.host)
"""

from tests.standin.lmstudio.calls import Call, CallLog, Change, Violation
from tests.standin.lmstudio.errors import ServerError
from tests.standin.lmstudio.faults import Fault
from tests.standin.lmstudio.models.behaviours import (
    Corrupted,
    Crashes,
    CrashesAbove,
    CutsPrompt,
    Echoes,
    Embedded,
    ForgetsMiddle,
    Gibberish,
    GrantsAtMost,
    GrantsMore,
    Guardrail,
    MissingFromDisk,
    OutOfMemory,
    Reasons,
    Says,
    SeesLast,
    SharesContext,
    SharesWindow,
    SlowDecode,
    Unsupported,
)
from tests.standin.lmstudio.models.model import StandInModel, UserInstance
from tests.standin.lmstudio.server import LmStudioServer

__all__ = [
    "Call",
    "CallLog",
    "Change",
    "Corrupted",
    "Crashes",
    "CrashesAbove",
    "CutsPrompt",
    "Echoes",
    "Embedded",
    "Fault",
    "ForgetsMiddle",
    "Gibberish",
    "GrantsAtMost",
    "GrantsMore",
    "Guardrail",
    "LmStudioServer",
    "MissingFromDisk",
    "OutOfMemory",
    "Reasons",
    "Says",
    "SeesLast",
    "ServerError",
    "SharesContext",
    "SharesWindow",
    "SlowDecode",
    "StandInModel",
    "Unsupported",
    "UserInstance",
    "Violation",
]
