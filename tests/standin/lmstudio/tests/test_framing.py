"""The stand-in's reaction to invalid frames."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

from tests.standin.lmstudio import LmStudioServer, StandInModel

TINY = StandInModel(key="tiny")


@contextmanager
def raw(server: LmStudioServer, namespace: str = "llm") -> Iterator[ClientConnection]:
    """A raw WebSocket client."""
    with websocket(f"ws://{server.host}/{namespace}", proxy=None) as socket:
        auth = {"authVersion": 1, "clientIdentifier": "me", "clientPasskey": "mine"}
        socket.send(json.dumps(auth))
        assert json.loads(socket.recv()) == {"success": True}
        yield socket


def test_stopping_leaves_no_thread() -> None:
    before = threading.active_count()
    with LmStudioServer([TINY]) as server, raw(server):
        assert threading.active_count() > before
    assert not [t for t in threading.enumerate() if t.name == "lmstudio-stand-in"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "rpcCall", "endpoint": "noSuchThing", "callId": 1},
        {"type": "rpcCall", "endpoint": "unloadModel", "callId": 1, "parameter": {}},
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1, "parameter": {"a": 1}},
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 0},
        {"type": "rpcCall", "endpoint": "listLoaded", "callId": 1, "extra": 1},
        {"type": "channelSend", "channelId": 1, "message": {"type": "stop"}},
        {"type": "unheardOf"},
        {
            "type": "channelCreate",
            "endpoint": "loadModel",
            "channelId": 1,
            "creationParameter": {
                "modelKey": "tiny",
                "ttlMs": 0,
                "loadConfigStack": {"layers": []},
            },
        },
        {
            "type": "channelCreate",
            "endpoint": "loadModel",
            "channelId": 1,
            "creationParameter": {
                "modelKey": "tiny",
                "loadConfigStack": {
                    "layers": [
                        {
                            "layerName": "apiOverride",
                            "config": {"fields": [{"key": "llm.load.contextLenght", "value": 9}]},
                        }
                    ]
                },
            },
        },
    ],
)
def test_an_invalid_message_gets_a_warning_and_no_answer(message: dict[str, object]) -> None:
    with LmStudioServer([TINY]) as server, raw(server) as socket:
        socket.send(json.dumps(message))
        assert json.loads(socket.recv())["type"] == "communicationWarning"
        socket.send(json.dumps({"type": "keepAlive"}))
        assert json.loads(socket.recv()) == {"type": "keepAliveAck"}
        assert len(server.violations) == 1
        assert server.calls == []


def test_a_frozen_server_answers_no_ping() -> None:
    with LmStudioServer() as server, raw(server) as socket:
        server.freeze()
        pong = socket.ping()
        assert not pong.wait(0.2)
        server.thaw()
        assert pong.wait(10)


def test_the_connection_closes_after_five_warnings() -> None:
    with LmStudioServer() as server, raw(server) as socket:
        for _ in range(7):
            socket.send("not JSON")
        socket.send(json.dumps({"type": "keepAlive"}))
        answers = [json.loads(socket.recv())["type"] for _ in range(6)]
        assert answers == ["communicationWarning"] * 5 + ["keepAliveAck"]
        assert len(server.violations) == 7
