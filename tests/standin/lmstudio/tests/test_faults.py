"""Scripted faults happen where, how and as often as specified, and affect nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
import lmstudio
import pytest

from tests.standin.lmstudio import (
    Fault,
    LmStudioServer,
    ServerError,
    StandInModel,
    UserInstance,
)
from tests.standin.lmstudio.tests.conftest import Connect

TINY = StandInModel(key="tiny")
USERS = UserInstance(key="tiny", identifier="chat")


def test_a_fault_can_carry_a_custom_error(connect: Connect) -> None:
    error = ServerError(title="Boom", cause="because", suggestion="do not")
    with LmStudioServer([TINY], faults=[Fault(where="load", kind="error", error=error)]) as server:
        llm = connect(server.host).llm
        with pytest.raises(lmstudio.LMStudioServerError, match=r"Boom(.|\n)*because(.|\n)*do not"):
            llm.load_new_instance("tiny")
        assert server.loads()[0].outcome == "error: Boom"
        assert server.faults_left() == ()
        assert llm.load_new_instance("tiny").identifier == "tiny"


def test_skip_times_and_model_select_the_faulty_call(connect: Connect) -> None:
    fault = Fault(where="predict", kind="error", skip=1, times=2, model="tin")
    with LmStudioServer([TINY, StandInModel(key="other")], faults=[fault]) as server:
        llm = connect(server.host).llm
        tiny, other = llm.load_new_instance("tiny"), llm.load_new_instance("other")
        assert other.complete("2+3=").content == tiny.complete("2+3=").content == "5"
        for _ in range(2):
            with pytest.raises(lmstudio.LMStudioServerError, match="Unknown remote error"):
                tiny.complete("2+3=")
        assert other.complete("2+3=").content == tiny.complete("2+3=").content == "5"


def test_an_abandoned_load_finishes_later(connect: Connect, short_silence: float) -> None:
    fault = Fault(where="load_progress", kind="hang", after=0.5)
    with LmStudioServer([TINY], faults=[fault]) as server:
        with pytest.raises(lmstudio.LMStudioTimeoutError):
            connect(server.host).llm.load_new_instance("tiny", "late")
        assert server.loaded() == ()
        server.release()
        server.wait_for(lambda: server.loaded() == ("late",))


def test_a_load_outlives_its_connection(connect: Connect) -> None:
    faults = [
        Fault(where="load_progress", kind="close_socket"),
        Fault(where="load_progress", kind="hang", after=0.5),
    ]
    with LmStudioServer([TINY], faults=faults) as server:
        with pytest.raises(lmstudio.LMStudioWebsocketError):
            connect(server.host).llm.load_new_instance("tiny", "late")
        server.wait_for(lambda: server.faults_left() == ())
        server.release()
        server.wait_for(lambda: server.loaded() == ("late",))
        assert [i.identifier for i in connect(server.host).llm.list_loaded()] == ["late"]


def test_a_load_with_slow_progress(connect: Connect, short_silence: float) -> None:
    model = StandInModel(key="big", load_steps=10)
    slow = Fault(where="load_progress", kind="slow", seconds=short_silence / 4, times=10)
    with LmStudioServer([model], faults=[slow]) as server:
        begin = time.monotonic()
        connect(server.host).llm.load_new_instance("big")
        assert time.monotonic() - begin > 2 * short_silence


@pytest.mark.parametrize("where", ["predict", "prefill", "fragment"])
def test_silence_while_predicting(connect: Connect, short_silence: float, where: str) -> None:
    fault = Fault(where=where, kind="hang")  # type: ignore[arg-type]
    with LmStudioServer([TINY], faults=[fault]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine")
        with pytest.raises(lmstudio.LMStudioTimeoutError):
            llm.complete("2+3=")
        assert server.pending("predict")
        llm.unload()
        server.wait_for(lambda: not server.pending("predict"))
        assert server.predictions()[0].outcome == "error: Model unloaded."


def test_a_channel_that_closes_without_a_result(connect: Connect) -> None:
    fault = Fault(where="fragment", kind="close_channel", after=3)
    with LmStudioServer([TINY], faults=[fault]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny")
        with pytest.raises(lmstudio.LMStudioRuntimeError):
            llm.complete("Once upon a time")


def test_a_broken_connection_ends_the_prediction_but_keeps_the_instance(connect: Connect) -> None:
    fault = Fault(where="fragment", kind="close_socket", after=3)
    with LmStudioServer([TINY], faults=[fault]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine")
        with pytest.raises(lmstudio.LMStudioWebsocketError):
            llm.complete("Once upon a time")
        again = lmstudio.LLM("mine", connect(server.host).llm)
        assert again.complete("2+3=").content == "5"
        assert server.predictions()[0].outcome == "lost"


@pytest.mark.parametrize("text", ["{", "[]", '{"type": "channelSend"}'])
def test_garbage_frames_break_only_the_client_session(connect: Connect, text: str) -> None:
    fault = Fault(where="fragment", kind="garbage", text=text)
    with LmStudioServer([TINY], faults=[fault]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine")
        with pytest.raises(lmstudio.LMStudioError):
            llm.complete("2+3=")
        again = lmstudio.LLM("mine", connect(server.host).llm)
        assert again.complete("2+3=").content == "5"


@pytest.mark.parametrize(("exit_code", "text"), [(6, "Exit code: 6"), (None, "Exit code: null")])
def test_a_crash_removes_the_instance(connect: Connect, exit_code: int | None, text: str) -> None:
    fault = Fault(where="predict", kind="crash", exit_code=exit_code)
    with LmStudioServer([TINY], loaded=[USERS], faults=[fault]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine")
        with pytest.raises(lmstudio.LMStudioServerError, match=text):
            llm.complete("2+3=")
        assert server.loaded() == ("chat",)
        assert server.changes[-1].why == "crash"
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            llm.unload()


def test_a_crash_while_loading(connect: Connect) -> None:
    fault = Fault(where="load_progress", kind="crash", after=0.5)
    with LmStudioServer([TINY], faults=[fault]) as server:
        llm = connect(server.host).llm
        with pytest.raises(lmstudio.LMStudioServerError, match=r"(?s)Error loading model.*code: 6"):
            llm.load_new_instance("tiny")
        assert server.changes == []


@pytest.mark.parametrize("where", ["load_progress", "predict", "listLoaded"])
def test_a_restart_loses_everything_but_the_port(connect: Connect, where: str) -> None:
    with LmStudioServer([TINY], loaded=[USERS]) as server:
        client = connect(server.host)
        llm = client.llm.load_new_instance("tiny", "mine")
        doing: dict[str, Callable[[], object]] = {
            "load_progress": lambda: client.llm.load_new_instance("tiny"),
            "predict": lambda: llm.complete("2+3="),
            "listLoaded": client.llm.list_loaded,
        }
        server.add_fault(Fault(where=where, kind="restart"))  # type: ignore[arg-type]
        with pytest.raises(lmstudio.LMStudioWebsocketError):
            doing[where]()
        assert server.loaded() == ()
        assert {c.why for c in server.changes if not c.loaded} == {"restart"}
        assert connect(server.host).llm.list_loaded() == []


def test_a_server_can_go_away_and_come_back(connect: Connect) -> None:
    with LmStudioServer([TINY], faults=[Fault(where="predict", kind="gone")]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny")
        with pytest.raises(lmstudio.LMStudioWebsocketError):
            llm.complete("2+3=")
        assert not lmstudio.Client.is_valid_api_host(server.host)
        server.come_back()
        assert lmstudio.Client.is_valid_api_host(server.host)
        assert connect(server.host).llm.list_loaded() == []


@pytest.mark.parametrize("kind", ["error", "ignore"])
def test_an_unload_that_does_not_unload(connect: Connect, kind: str) -> None:
    fault = Fault(where="unloadModel", kind=kind)  # type: ignore[arg-type]
    with LmStudioServer([TINY], faults=[fault]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine")
        try:
            llm.unload()
        except lmstudio.LMStudioServerError:
            assert kind == "error"
        assert server.loaded() == ("mine",)
        llm.unload()
        assert server.loaded() == ()


def test_an_unload_that_takes_too_long(connect: Connect, short_silence: float) -> None:
    with LmStudioServer([TINY], faults=[Fault(where="unloadModel", kind="hang")]) as server:
        llm = connect(server.host).llm.load_new_instance("tiny", "mine")
        with pytest.raises(lmstudio.LMStudioTimeoutError):
            llm.unload()
        assert server.loaded() == ("mine",)
        server.release()
        server.wait_for(lambda: server.loaded() == ())


def test_a_listing_that_hangs(connect: Connect, short_silence: float) -> None:
    fault = Fault(where="listLoaded", kind="hang")
    with LmStudioServer([TINY], faults=[fault]) as server:
        client = connect(server.host)
        with pytest.raises(lmstudio.LMStudioTimeoutError):
            client.llm.list_loaded()
        assert client.llm.list_loaded() == []


def test_a_greeting_that_hangs() -> None:
    with LmStudioServer(faults=[Fault(where="greeting", kind="hang")]) as server:
        with pytest.raises(httpx.ReadTimeout):
            lmstudio.Client.is_valid_api_host(server.host)
        assert lmstudio.Client.is_valid_api_host(server.host)


@pytest.mark.parametrize("kind", ["error", "close_socket", "gone"])
def test_a_connection_can_be_refused(connect: Connect, kind: str) -> None:
    fault = Fault(where="connect", kind=kind)  # type: ignore[arg-type]
    with LmStudioServer(faults=[fault]) as server:
        with pytest.raises((lmstudio.LMStudioError, ValueError, KeyError)):
            connect(server.host).llm.list_loaded()
        assert server.faults_left() == ()


def test_a_frozen_server_thaws(connect: Connect, short_silence: float) -> None:
    with LmStudioServer([TINY]) as server:
        client = connect(server.host)
        llm = client.llm.load_new_instance("tiny", "mine")
        server.freeze()
        with pytest.raises(lmstudio.LMStudioTimeoutError):
            llm.complete("2+3=")
        server.thaw()
        assert llm.complete("2+3=").content == "5"


@pytest.mark.parametrize("where", ["load", "load_progress", "predict", "fragment", "connect"])
def test_stopping_ends_hanging_calls_immediately(connect: Connect, where: str) -> None:
    fault = Fault(where=where, kind="hang")  # type: ignore[arg-type]
    with LmStudioServer([TINY], faults=[fault]) as server:
        client = connect(server.host)

        def stop_when_it_hangs() -> None:
            server.wait_for(lambda: server.faults_left() == ())
            server.stop()

        stopping = threading.Thread(target=stop_when_it_hangs)
        stopping.start()
        with pytest.raises(lmstudio.LMStudioError):
            client.llm.load_new_instance("tiny").complete("2+3=")
        stopping.join()


def test_user_actions_in_the_app_change_the_instances(connect: Connect) -> None:
    with LmStudioServer([TINY], loaded=[USERS]) as server:
        server.load_for_user(UserInstance(key="tiny", identifier="second", context_length=99))
        loaded = connect(server.host).llm.list_loaded()
        assert [i.identifier for i in loaded] == ["chat", "second"]
        assert loaded[1].get_context_length() == 99
        server.unload_for_user("chat")
        assert server.loaded() == ("second",)
