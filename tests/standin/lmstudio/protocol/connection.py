"""One WebSocket: greeting, framing and dispatch of calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from itertools import cycle
from typing import TYPE_CHECKING, Any

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.standin.lmstudio.calls import Call, Violation
from tests.standin.lmstudio.errors import Refused, ServerError
from tests.standin.lmstudio.faults import Fault
from tests.standin.lmstudio.protocol import loading, predicting, rpcs, wire

if TYPE_CHECKING:
    from tests.standin.lmstudio.server import LmStudioServer

_MOST_WARNINGS = 5


class Unanswered(Exception):
    """The call gets no answer, or no further one."""


class Connection:
    """Serves one WebSocket of one namespace."""

    def __init__(self, server: LmStudioServer, socket: ServerConnection, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        self._socket = socket
        self._channels: dict[int, Channel] = {}
        self._last_ids = {"call": 0, "channel": 0}
        self._warnings = 0

    async def serve(self) -> None:
        """Serve until the connection ends."""
        try:
            if await self._authenticate():
                async for frame in self._socket:
                    await self.server.thawed.wait()
                    await self._receive(frame)
        except ConnectionClosed:
            pass
        finally:
            for channel in self._channels.values():
                channel.lose()

    async def send(self, message: dict[str, Any]) -> None:
        """Send a frame; dropped if the connection is lost."""
        # Unlike msgspec, json escapes lone surrogates, which model output may contain.
        await self.send_text(json.dumps(message))

    async def send_text(self, text: str) -> None:
        """Send `text` as a frame, unchecked."""
        try:
            await self.server.thawed.wait()
            await self._socket.send(text)
        except ConnectionClosed:
            pass

    def abort(self) -> None:
        """Abort the connection without a closing handshake."""
        self._socket.transport.abort()

    def listen(self, on: bool) -> None:
        """Resume or pause reading."""
        transport = self._socket.transport
        (transport.resume_reading if on else transport.pause_reading)()

    async def _authenticate(self) -> bool:
        first = await self._socket.recv()
        try:
            await self.server.meet("connect", connection=self)
            auth = msgspec.convert(json.loads(first), wire.Auth)
            if auth.auth_version != 1 or len(auth.client_identifier + auth.client_passkey) > 512:
                raise ValueError(f"bad auth message {auth}")
            tokens = self.server.api_tokens
            if tokens and f"{auth.client_identifier}:{auth.client_passkey}" not in tokens:
                raise Refused(ServerError(title="Invalid API token."))
        except Unanswered:
            return False
        except Refused as refused:
            await self.send({"success": False, "error": refused.error.title})
            return False
        except ValueError as problem:
            self._violation(str(problem))
            await self.send({"success": False, "error": str(problem)})
            return False
        await self.send({"success": True})
        return True

    async def _receive(self, frame: str | bytes) -> None:
        self.server.machine.expire()
        try:
            if isinstance(frame, bytes):
                raise ValueError("binary frame")
            message = wire.decode_frame(frame)
            match message:
                case wire.KeepAlive():
                    await self.send({"type": "keepAliveAck"})
                case wire.ChannelSend():
                    self._on_channel_send(message)
                case wire.RpcCall():
                    self._next_id("call", message.call_id)
                    if message.endpoint == "estimateModelUsage" and not self.server.estimates:
                        raise ValueError(f"unknown endpoint {message.endpoint}")
                    parameter = wire.parse(
                        wire.RPCS, self.namespace, message.endpoint, message.parameter
                    )
                    self.server.spawn(self._answer(message, parameter))
                case wire.ChannelCreate():
                    self._next_id("channel", message.channel_id)
                    parameter = wire.parse(
                        wire.CHANNELS, self.namespace, message.endpoint, message.creation_parameter
                    )
                    self._open(message, parameter)
        except ValueError as problem:
            self._violation(str(problem))
            await self._warn(str(problem))

    def _next_id(self, kind: str, number: int) -> None:
        if number <= self._last_ids[kind]:
            raise ValueError(f"{kind} id {number} after {self._last_ids[kind]}")
        self._last_ids[kind] = number

    def _on_channel_send(self, message: wire.ChannelSend) -> None:
        if message.message != {"type": "cancel"}:
            raise ValueError(f"unknown channel message {message.message}")
        # A cancel may cross the end of its channel.
        if channel := self._channels.get(message.channel_id):
            channel.cancel()

    def _violation(self, problem: str) -> None:
        self.server.record(
            Violation(time=self.server.clock(), namespace=self.namespace, problem=problem)
        )

    async def _warn(self, problem: str) -> None:
        self._warnings += 1
        if self._warnings <= _MOST_WARNINGS:
            await self.send({"type": "communicationWarning", "warning": problem, "kind": "other"})

    async def _answer(self, message: wire.RpcCall, parameter: Any) -> None:
        note = self.server.begin(self.namespace, message.endpoint)
        answer: dict[str, Any] = {"type": "rpcResult", "callId": message.call_id}
        try:
            result = await rpcs.answer(self, message.endpoint, parameter, note)
            if result is not None:
                answer["result"] = result
            note.end("ok")
        except Unanswered:
            note.end("lost")
            return
        except Refused as refused:
            note.end(f"error: {refused.error.title}")
            answer = answer | {"type": "rpcError", "error": refused.error.to_wire()}
        await self.send(answer)

    def _open(self, message: wire.ChannelCreate, parameter: Any) -> None:
        note = self.server.begin(self.namespace, message.endpoint)
        channel = Channel(self, message.channel_id, note)
        self._channels[message.channel_id] = channel
        serve = predicting.predict if message.endpoint == "predict" else loading.load
        self.server.spawn(channel.run(serve(channel, parameter, note)))

    def forget(self, channel_id: int) -> None:
        """Handle the end of the channel."""
        self._channels.pop(channel_id, None)


class Channel:
    """The stream of messages that answers one call."""

    def __init__(self, connection: Connection, channel_id: int, note: Note) -> None:
        self.connection = connection
        self.server = connection.server
        self.cancelled = False
        self.lost = False
        self._id = channel_id
        self._note = note
        self._on_loss: list[asyncio.Task[None]] = []

    def ends_with_connection(self, task: asyncio.Task[None]) -> None:
        """Cancel `task` when the connection is lost."""
        self._on_loss.append(task)

    def cancel(self) -> None:
        """Handle a cancel by the client."""
        self.cancelled = True
        self._note.add(cancelled=True)

    def lose(self) -> None:
        """Handle the loss of the connection."""
        self.lost = True
        for task in self._on_loss:
            task.cancel()

    async def send(self, message: dict[str, Any]) -> None:
        """Send `message` to the client."""
        await self._frame({"type": "channelSend", "message": message})

    async def repeat(self, fault: Fault | None, *messages: dict[str, Any]) -> None:
        """Repeat `messages` in turn if a `repeat` fault applies, until the client gives up."""
        turns = cycle(messages)
        while fault and fault.kind == "repeat" and not (self.cancelled or self.lost):
            await asyncio.sleep(fault.seconds)
            await self.send(next(turns))

    async def run(self, serving: Coroutine[Any, Any, None]) -> None:
        """Await `serving`, then end the channel with its result or error."""
        note = self._note
        try:
            await serving
            note.end("lost" if self.lost else "cancelled" if self.cancelled else "ok")
            await self._frame({"type": "channelClose"})
        except Unanswered:
            note.end("lost")
            await self._frame({"type": "channelClose"})
        except Refused as refused:
            note.end(f"error: {refused.error.title}")
            await self._frame({"type": "channelError", "error": refused.error.to_wire()})
        finally:
            note.end("lost")
            self.connection.forget(self._id)

    async def _frame(self, frame: dict[str, Any]) -> None:
        if not self.lost:
            await self.connection.send(frame | {"channelId": self._id})


class Note:
    """The log entry of a call, updated while it runs."""

    def __init__(self, server: LmStudioServer, call: Call) -> None:
        self._server = server
        self.call = call
        server.record(call)

    def add(self, **fields: Any) -> None:
        """Update fields of the entry."""
        self.call = msgspec.structs.replace(self.call, **fields)
        self._server.record(self.call)

    def end(self, outcome: str) -> None:
        """Set the outcome; the first one is kept."""
        if self.call.outcome == "pending":
            self.add(outcome=outcome, seconds=self._server.clock() - self.call.time)
