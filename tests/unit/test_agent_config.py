"""The agent's configuration: what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from farshore_engine.agent.config import AgentConfig, Server, load, parse
from farshore_engine.contract.faults import StopFault

GOOD: dict[str, Any] = {
    "machineId": "web-1",
    "servers": [{"host": "10.0.0.4"}, {"host": "ps.example", "port": 10443}],
    "ca": "/etc/farshore/agent/ca.pem",
    "certificate": "/etc/farshore/agent/agent.pem",
    "key": "/etc/farshore/agent/agent.key",
}


def test_the_smallest_configuration_gets_the_defaults() -> None:
    config = parse(GOOD)
    assert isinstance(config, AgentConfig)
    assert config.servers == (Server("10.0.0.4", 9443), Server("ps.example", 10443))
    assert config.freeze_bound == 60.0
    assert config.state_dir == Path("/var/lib/farshore")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"machineId": ""}, "machineId: is empty", id="empty machine id"),
        pytest.param({"servers": []}, "servers: at least one is needed", id="no server"),
        pytest.param({"servers": [{"port": 1}]}, "servers[0].host", id="server without host"),
        pytest.param({"servers": [{"host": "a", "port": 70000}]}, "servers[0].port", id="port too large"),
        pytest.param({"freezeBound": 0}, "freezeBound: must be greater than 0", id="no freeze bound"),
        pytest.param({"freezeBound": "1s"}, "freezeBound: expected float, got str", id="bound of another type"),
        pytest.param({"tracker": "magic"}, "tracker: 'magic' is none of", id="unknown tracker"),
        pytest.param({"disks": {"include": [1]}}, "disks.include: expected a list of strings", id="bad include"),
        pytest.param({"disks": {"only": []}}, "disks: unknown fields ['only']", id="unknown disk field"),
        pytest.param({"machineID": "x"}, "unknown fields: machineID", id="misspelt field"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(StopFault, match=r"agent configuration") as caught:
        parse({**GOOD, **change})
    assert said in caught.value.message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(StopFault, match="certificate: missing"):
        parse({k: v for k, v in GOOD.items() if k != "certificate"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "is not JSON", id="torn file"),
        pytest.param("[]", "is not a JSON object", id="a list"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(StopFault, match=said):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StopFault, match="No such file"):
        load(tmp_path / "config.json")
