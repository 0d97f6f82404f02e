"""A stand-in LM Studio: the real protocol on a loopback port, for the unmodified SDK.

>>> with LmStudioServer([StandInModel(key="tiny")]) as server:
...     client = lmstudio.Client(server.host)
"""

from tests.support.lmstudio_server.behaviours import (
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
    SlowDecode,
    Unsupported,
)
from tests.support.lmstudio_server.calls import Call, CallLog, Change, Violation
from tests.support.lmstudio_server.errors import ServerError
from tests.support.lmstudio_server.faults import Fault
from tests.support.lmstudio_server.models import StandInModel, UserInstance
from tests.support.lmstudio_server.server import LmStudioServer

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
    "SlowDecode",
    "StandInModel",
    "Unsupported",
    "UserInstance",
    "Violation",
]
