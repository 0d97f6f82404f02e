"""The server: a thread with an event loop that speaks WebSocket and HTTP on one loopback port."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from tests.standin.lmstudio import errors
from tests.standin.lmstudio.calls import Call, CallLog
from tests.standin.lmstudio.errors import Refused
from tests.standin.lmstudio.faults import Fault, FaultBook, Where
from tests.standin.lmstudio.machine import Machine
from tests.standin.lmstudio.models.model import StandInModel, UserInstance
from tests.standin.lmstudio.protocol import wire
from tests.standin.lmstudio.protocol.connection import Connection, Note, Unanswered

_LOG = logging.getLogger(__name__)
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


class LmStudioServer(CallLog):
    """A stand-in LM Studio on a loopback port, running inside `with`.

    It is its own `CallLog`. All instances share `memory_bytes`; above it a load is
    refused by the guardrail, or with `guardrail=False` fails to allocate. `clock` measures
    TTLs, in seconds. `api_tokens` (`IDENTIFIER:PASSKEY`) lock the server.

    Raises:
        ExceptionGroup: At the end of `with`: errors of the stand-in itself.
    """

    def __init__(
        self,
        models: Iterable[StandInModel] = (),
        *,
        loaded: Iterable[UserInstance] = (),
        faults: Iterable[Fault] = (),
        memory_bytes: int | None = None,
        guardrail: bool = True,
        api_tokens: Iterable[str] = (),
        estimates: bool = False,
        version: str = "0.3.30",
        port: int = 0,
        home: Path | None = None,
        log_path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(log_path)
        self.clock = clock
        self.version = version
        self.api_tokens = frozenset(api_tokens)
        self.estimates = estimates
        self.port = port
        self.home = home
        self.machine = Machine(
            models, self, memory_bytes=memory_bytes, guardrail=guardrail, clock=clock
        )
        self.thawed = asyncio.Event()
        self._released = asyncio.Event()
        self._users = tuple(loaded)
        self._faults = FaultBook(faults)
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._problems: list[Exception] = []
        self._listening: Server | None = None
        self._stopped = asyncio.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="lmstudio-stand-in", daemon=True)

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._problems:
            self.stop()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Break every connection and end the thread; idempotent.

        The log keeps the instances loaded at that time.
        """
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        problems, self._problems = self._problems, []
        if problems:
            raise ExceptionGroup("the stand-in LM Studio is at fault", problems)

    def loaded(self) -> tuple[str, ...]:
        """Return identifiers of loaded instances that have not expired."""
        now = self.clock()
        instances = tuple(self.machine.instances.values())
        return tuple(i.identifier for i in instances if not i.expired(now))

    def add_fault(self, fault: Fault) -> None:
        """Add a fault."""
        self._faults.add(fault)

    def faults_left(self) -> tuple[Fault, ...]:
        """Return the faults that have not happened `times` times."""
        return self._faults.left()

    def release(self) -> None:
        """Continue all hanging calls."""
        self._call(self._do_release)

    def freeze(self) -> None:
        """Stop answering, pings included, and keep every connection."""
        self._call(self._freeze)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        self._call(self._thaw)

    def drop_connections(self) -> None:
        """Break every connection; instances and loads are kept."""
        self._call(self._drop)

    def restart(self) -> None:
        """Lose every connection, load and instance, and start again."""
        self._call(self._restart)

    def go_away(self) -> None:
        """Lose everything as in `restart`, and close the port."""
        self._call(self._go_away)

    def come_back(self) -> None:
        """Listen on the same port again."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def load_for_user(self, instance: UserInstance) -> None:
        """Load a model as a user of the app."""
        self._call(lambda: self.machine.add_users(instance))

    def unload_for_user(self, identifier: str) -> None:
        """Unload an instance as a user of the app."""
        self._call(lambda: self.machine.remove(self.machine.instances[identifier], "unload"))

    # The following methods run in the thread of the event loop.

    def begin(self, namespace: str, endpoint: str) -> Note:
        """Add a call to the log."""
        return Note(
            self,
            Call(number=len(self.calls), time=self.clock(), namespace=namespace, endpoint=endpoint),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` concurrently; it ends with the server."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def meet(
        self, where: Where, *, connection: Connection | None, model: str = "", progress: float = 0.0
    ) -> Fault | None:
        """Apply the fault of this call; return it if the call continues.

        Raises:
            Refused: The fault is an error.
            Unanswered: The call ends here.
        """
        fault = self._faults.take(where, model, progress)
        if fault is not None:
            self.nudge()
        match fault:
            case None | Fault(kind="ignore" | "repeat"):
                pass
            case Fault(kind="error"):
                raise Refused(fault.error)
            case Fault(kind="hang"):
                await self._released.wait()
            case Fault(kind="slow"):
                await asyncio.sleep(fault.seconds)
            case Fault(kind="close_channel"):
                raise Unanswered
            case Fault(kind="close_socket") if connection:
                connection.abort()
            case Fault(kind="garbage") if connection:
                await connection.send_text(fault.text)
            case Fault(kind="crash"):
                loading = where in ("load", "load_progress")
                crash = errors.load_crashed if loading else errors.prediction_crashed
                raise Refused(crash(fault.exit_code), fatal=not loading)
            case Fault(kind="restart"):
                self._restart()
                raise Unanswered
            case Fault(kind="gone"):
                self._go_away()
                raise Unanswered
        return fault

    def _call(self, action: Callable[[], object]) -> None:
        """Run `action` in the event loop and wait for it."""

        async def run() -> None:
            action()

        if self._loop is None:
            raise RuntimeError("the stand-in LM Studio is not running")
        asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as problem:
            self._problems.append(problem)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.thawed.set()
        for user in self._users:
            self.machine.add_users(user)
        await self._listen()
        self._ready.set()
        await self._stopped.wait()
        self._drop()
        self._close_port()
        for instance in self.machine.instances.values():
            instance.mind.close()

    async def _listen(self) -> None:
        self._listening = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            process_request=self._http,
            max_size=None,
            compression=None,
            ping_interval=None,
            close_timeout=0.1,
            logger=_LOG,
        )
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        connection = Connection(self, socket, socket.request.path.strip("/"))
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def _http(self, socket: ServerConnection, request: Request) -> Response | None:
        """Plain HTTP on the same port: the greeting, and LM Studio's error for other paths."""
        if request.path.strip("/") in wire.NAMESPACES:
            return None
        if request.path != "/lmstudio-greeting":
            problem = f"Unexpected endpoint or method. (GET {request.path})"
            return socket.respond(200, json.dumps({"error": problem}))
        try:
            await self.thawed.wait()
            await self.meet("greeting", connection=None)
        except (Refused, Unanswered):
            return socket.respond(500, "{}")
        return socket.respond(200, json.dumps({"lmstudio": True}))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(problem := task.exception(), Exception):
            self._problems.append(problem)
            self._drop()

    def _do_release(self) -> None:
        self._released.set()
        self._released.clear()

    def _drop(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()

    def _freeze(self) -> None:
        self.thawed.clear()
        for connection in self._connections:
            connection.listen(False)

    def _thaw(self) -> None:
        self.thawed.set()
        for connection in self._connections:
            connection.listen(True)

    def _restart(self) -> None:
        self._drop()
        for task in self._tasks:
            task.cancel()
        self.machine.clear("restart")
        self._thaw()

    def _go_away(self) -> None:
        self._restart()
        self._close_port()

    def _close_port(self) -> None:
        if self._listening is not None:
            self._listening.close(close_connections=False)
            self._listening = None
