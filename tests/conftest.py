"""What tests of several suites share: one real control plane and one blob service for a whole session.

Both are started by the first test that asks for them, and end with the session, however it ends. A test uses a
namespace or container of its own in them. A test that kills or fills one starts its own `ControlPlane` or `Azurite`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from farshore_cli.dev.azurite import Azurite
from farshore_cli.dev.controlplane import ControlPlane

# Each run tries the same examples, and none has a time limit: else one fails by chance, or because a machine is busy.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command that runs inside a test sets up logs for its own process: they would go to a captured, closed file."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Kubernetes: `.kubeconfig`, `.kubectl(...)`, `.helm(...)`, `.environment()`; without Farshore's CRDs."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), progress=print) as running:
        yield running


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azure Blob: `.account_url`, `.account`, `.key`, `.connection_string`."""
    with Azurite(tmp_path_factory.mktemp("azurite"), progress=print) as running:
        yield running


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """Name of a namespace that exists for this test only."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def container_name() -> str:
    """Name for a blob container that no other test uses."""
    return f"test-{secrets.token_hex(6)}"
