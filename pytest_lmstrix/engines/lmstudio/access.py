"""Why a connection to an LM Studio server fails: its API token, or what else answers there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from pytest_lmstrix.core.failure import Failure
from pytest_lmstrix.core.verdicts import Verdict

VARIABLES = ("LM_API_TOKEN", "LMSTUDIO_API_TOKEN")
"""Where a token is looked up; the first that is set counts."""

_REFUSED = (401, 403, 407)
_TOKEN = re.compile(r"sk-lm-([A-Za-z0-9]{8}):([A-Za-z0-9]{20})")


class ApiToken(NamedTuple):
    """A token in the parts in which it is sent, and the variable that it comes from."""

    variable: str
    identifier: str
    passkey: str

    def __repr__(self) -> str:
        return f"ApiToken({self.variable})"


def api_token(environment: Mapping[str, str] = os.environ) -> ApiToken | None:
    """Return the token for LM Studio's API.

    Raises:
        Failure: What is set is not a token.
    """
    for variable in VARIABLES:
        if given := environment.get(variable, "").strip():
            token = _TOKEN.fullmatch(given)
            if token is None:
                text = (
                    f"the value of {variable} is not an API token of LM Studio, which is sk-lm-,"
                    " 8 letters or digits, a colon, and 20 more"
                )
                raise _refusal(text)
            return ApiToken(variable, token[1], token[2])
    return None


def refused(host: str, token: ApiToken | None) -> Failure:
    """Return the failure of a server that does not let this client in."""
    if token is None:
        return _refusal(f"LM Studio at {host} wants an API token: set {VARIABLES[0]}")
    return _refusal(f"LM Studio at {host} refused the API token in {token.variable}")


def stranger(host: str) -> Failure | None:
    """Return the failure of a host where something other than LM Studio answers.

    That may be a proxy before it, which is asked again if LM Studio may come back.
    """
    try:
        response = httpx.get(f"http://{host}/lmstudio-greeting", timeout=1, trust_env=False)
        if response.status_code >= 500:
            text = (
                f"what answers at {host} is a proxy: HTTP status {response.status_code};"
                " is LM Studio behind it running?"
            )
            return Failure(text, verdict=Verdict.UNREACHABLE, phase="connect")
        if response.status_code in _REFUSED:
            return _refusal(
                f"what answers at {host} refuses access: HTTP status {response.status_code}"
            )
        greeting = response.json()
    except (httpx.RemoteProtocolError, ValueError):
        greeting = None
    except (httpx.HTTPError, httpx.InvalidURL):
        return None  # nothing answers
    if isinstance(greeting, dict) and greeting.get("lmstudio"):
        return None
    return _refusal(f"what answers at {host} is not LM Studio")


def _refusal(text: str) -> Failure:
    return Failure(text, verdict=Verdict.UNREACHABLE, phase="connect", final=True)
