"""The Azure client behind a bad network, on real connections: what it acknowledged is there, exactly once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.contract.blob_container import blob_container
from tests.contract.faulty_network import Break, FaultyNetwork
from tests.unit.vault.rig import Rig

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.azure_store import AzureBlobStore
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, VersionMismatch

Connect = Callable[[FaultyNetwork], AzureBlobStore]


@pytest.fixture
def container(azurite: Any, container_name: str) -> Iterator[tuple[Any, str]]:
    with blob_container(azurite, container_name):
        yield azurite, container_name


@contextmanager
def behind(container: tuple[Any, str], plan: Callable[[int], Break]) -> Iterator[tuple[AzureBlobStore, FaultyNetwork]]:
    azurite, name = container
    with FaultyNetwork(azurite.port, plan) as network:
        url = azurite.account_url.replace(f":{azurite.port}", f":{network.port}")
        yield AzureBlobStore.connect(url, name, azurite.key, deadline=150.0), network


def direct(container: tuple[Any, str]) -> AzureBlobStore:
    azurite, name = container
    return AzureBlobStore.connect(azurite.account_url, name, azurite.key)


@pytest.mark.parametrize("how", [how for how in Break if how is not Break.NONE], ids=lambda how: how.value)
def test_every_operation_gets_over_a_broken_connection(container: tuple[Any, str], how: Break) -> None:
    """Each operation's first connection is broken; the pool is fresh for each, so that every one meets it."""
    plain, data = direct(container), random.Random(1).randbytes(3 << 20)

    def once(work: Callable[[AzureBlobStore], Any]) -> Any:
        with behind(container, lambda number: how if number == 0 else Break.NONE) as (store, network):
            result = work(store)
            assert network.broken == [how]
        return result

    version = once(lambda store: store.put("slot", data, create_only=True))
    assert plain.get("slot") == (data, version)
    assert once(lambda store: store.get("slot")) == (data, version)
    assert once(lambda store: store.get_range("slot", 1 << 20, 1 << 20)) == data[1 << 20 : 2 << 20]
    assert once(lambda store: list(store.sizes(""))) == [("slot", len(data))]
    replaced = once(lambda store: store.put_if("slot", data[::-1], version))
    assert plain.get("slot") == (data[::-1], replaced)
    with pytest.raises(AlreadyExists):
        once(lambda store: store.put("slot", data, create_only=True))
    with pytest.raises(VersionMismatch):
        once(lambda store: store.put_if("slot", data, version))
    once(lambda store: store.delete("slot"))
    with pytest.raises(ObjectNotFound):
        once(lambda store: store.head("slot"))


def test_a_network_that_stays_broken_is_a_wait_within_the_deadline(container: tuple[Any, str]) -> None:
    azurite, name = container
    with FaultyNetwork(azurite.port, lambda _: Break.CUT_REQUEST) as network:
        url = azurite.account_url.replace(f":{azurite.port}", f":{network.port}")
        store = AzureBlobStore.connect(url, name, azurite.key, deadline=2.0)
        with pytest.raises(WaitFault):
            store.put("x", bytes(2 << 20), create_only=True)
    with pytest.raises(ObjectNotFound):
        direct(container).get("x")  # a part of it is nothing


def test_points_are_made_and_restored_over_a_bad_network(container: tuple[Any, str]) -> None:
    chance = random.Random(55)  # breaks the first connection: how many more there are depends on the threads
    kinds = [how for how in Break if how is not Break.DELAY] + [Break.NONE] * 20
    with behind(container, lambda _: chance.choice(kinds)) as (store, network):
        rig = Rig(store, pack_target=1 << 20)
        for turn in range(3):
            rig.point("sda", {turn * 8 + i: turn * 100 + i + 1 for i in range(8)})
        rig.check_every_visible_point()
        assert network.broken
    rig.store = direct(container)
    assert len(rig.names()) == 3
    rig.check_every_visible_point()
