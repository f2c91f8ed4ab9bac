"""Both simulated clouds and a way to play the tutorial in them; slow things are as fast as they can be."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretBytes, SecretStr
from tests.azure.story.clouds import Clouds, own_net, site_of
from tests.azure.story.machines import Actor
from tests.azure.story.runs import AZURE, HUB
from tests.azure.story.tutorial import Story
from tests.azuresim import AzureSim
from tests.azuresim.hub import hub

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azurestack.mastertarget import Host
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess, VaultAccess
from farshore_engine.contract.site import CloudProvider
from farshore_engine.processserver import taskrunner
from farshore_engine.processserver.tasks import finalpoint

KEY = secrets.token_bytes(32)
Perform = Callable[..., Story]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    """A Hub and Azure, on addresses of this host's own that no other test uses."""
    with own_net() as net, hub() as source, AzureSim() as azure:
        actors = [Actor(name, f"{net}.1.{10 + at}", f"{net}.0.{10 + at}") for at, name in enumerate(("web", "db"))]
        made = Clouds(source, azure, net, actors)
        try:
            yield made
        finally:
            made.answering.stop_all()
            cloud_module.close_clouds()


@pytest.fixture(scope="module")
def perform(clouds: Clouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Perform]:
    """Begin a performance with a vault in a directory, or with the one that is given."""
    with pytest.MonkeyPatch.context() as patched:
        quicken(patched)
        yield from performing(clouds, tmp_path_factory.mktemp("story"))


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing in vain."""
    monkeypatch.setattr(cloud_module, "POLL_SECONDS", 0)
    monkeypatch.setitem(cloud_module.TIMES, "retry_backoff_factor", 0)
    monkeypatch.setattr(taskrunner, "RETRY_FIRST", 0.01)
    monkeypatch.setattr(taskrunner, "RETRY_MOST", 0.01)
    monkeypatch.setattr(taskrunner, "ASKED_MOST", 0.01)
    monkeypatch.setattr(finalpoint, "SILENT_FOR", 0.0)
    monkeypatch.setattr(finalpoint, "CONNECT", 0.2)


def performing(clouds: Clouds, directory: Path) -> Iterator[Perform]:
    at_the_hub = HubSetting(
        Host(addresses=lambda: (clouds.server_address,), device=clouds.device, appears=0),
        lambda site: ResourceManager(site, poll_every=0, retry_backoff_factor=0, retry_total=2),
    )
    sites = {
        HUB: site_of(clouds.hub, CloudProvider.AZURE_STACK_HUB), AZURE: site_of(clouds.azure, CloudProvider.AZURE),
    }  # fmt: skip
    performed: list[Story] = []

    def begin(vault: VaultAccess | None = None, *, together: bool = False, actors: int = 2) -> Story:
        number = len(performed)
        fresh = [Actor(one.name, one.home, one.away) for one in clouds.actors[:actors]]
        own = Clouds(clouds.hub, clouds.azure, clouds.net, fresh, clouds.answering)
        storage = DirectoryAccess(path=directory / f"vault-{number}")
        access = vault or VaultAccess(name="v", storage=storage, key=SecretBytes(KEY))
        performed.append(
            Story.begin(own, sites, access, directory / f"servers-{number}", at_the_hub, together=together)
        )
        return performed[-1]

    yield begin
    for story in performed:
        story.end()


def blob_vault(account_url: str, container: str, key: str) -> VaultAccess:
    """A vault in a container."""
    storage = AzureBlobAccess(account_url=account_url, container=container, account_key=SecretStr(key))
    return VaultAccess(name="v", storage=storage, key=SecretBytes(KEY))


def secrets_of(story: Story) -> list[str]:
    """Every secret that was used: of principals, tokens, signatures of disks, the vault's keys."""
    found = [KEY.hex(), base64.b64encode(KEY).decode()]
    storage = story.stage.vault.storage
    if isinstance(storage, AzureBlobAccess) and storage.account_key is not None:
        found.append(storage.account_key.get_secret_value())
    for sim in (story.clouds.hub, story.clouds.azure):
        found += [one.secret for one in sim.tokens.principals.values()]
        found += list(sim.tokens.given)
        found += [one.query["sig"] for one in sim.calls if "sig" in one.query]
    return [one for one in found if one]
