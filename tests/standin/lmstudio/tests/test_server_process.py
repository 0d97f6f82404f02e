"""The stand-in as a separate process."""

from __future__ import annotations

from pathlib import Path

import lmstudio
import pytest

from tests.standin.lmstudio import Fault, Gibberish, Says, StandInModel, UserInstance
from tests.standin.lmstudio.config import ServerConfig
from tests.standin.lmstudio.process import LmStudioProcess
from tests.standin.lmstudio.tests.conftest import Connect

CONFIG = ServerConfig(
    models=(
        StandInModel(key="tiny", behaviours=(Gibberish(above=5000, measure="filled"),)),
        StandInModel(key="odd", behaviours=(Says(text="\ud800\x00"),)),
    ),
    loaded=(UserInstance(key="tiny"),),
    faults=(Fault(where="predict", kind="crash", skip=1),),
    memory_bytes=10**12,
)


def test_a_configuration_round_trips_through_its_file(tmp_path: Path) -> None:
    CONFIG.write(tmp_path / "server.json")
    assert ServerConfig.read(tmp_path / "server.json") == CONFIG


def test_a_server_process_serves_logs_and_takes_commands(connect: Connect, tmp_path: Path) -> None:
    with LmStudioProcess(CONFIG, tmp_path) as process:
        llm = connect(process.host).llm.load_new_instance("tiny", "mine", ttl=9)
        assert llm.complete("2+3=").content == "5"
        with pytest.raises(lmstudio.LMStudioServerError, match="Exit code"):
            llm.complete("2+3=")
        log = process.log()
        assert log.loads()[0].ttl_ms == 9000
        assert [c.outcome.split(":")[0] for c in log.predictions()] == ["ok", "error"]
        assert log.loaded() == ("tiny",)
        assert log.max_loaded_at_once() == 2
        assert log.violations == []
        process.send("restart")
        assert process.log().loaded() == ()
        assert connect(process.host).llm.list_loaded() == []


def test_a_server_process_can_be_killed(connect: Connect, tmp_path: Path) -> None:
    with LmStudioProcess(CONFIG, tmp_path) as process:
        client = connect(process.host)
        assert len(client.llm.list_loaded()) == 1
        process.kill()
        with pytest.raises(lmstudio.LMStudioWebsocketError):
            client.llm.list_loaded()
        assert process.log().loaded() == ("tiny",)
