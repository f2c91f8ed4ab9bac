"""Locks on a real client: what an account without immutability answers, and what the client asks one that has it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.contract.blob_container import blob_container

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.azure_locks import LockingBlobStore
from farshore_engine.vault.store import LockingStore

UNTIL = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def store(azurite: Any, container_name: str) -> Iterator[LockingBlobStore]:
    with blob_container(azurite, container_name):
        found = LockingBlobStore.connect(azurite.account_url, container_name, azurite.key)
        assert isinstance(found, LockingBlobStore)
        yield found


def test_an_account_that_does_not_lock_is_told_what_to_switch_on(store: LockingBlobStore) -> None:
    """Azurite answers 501."""
    store.put("a", b"1")
    with pytest.raises(StopFault) as caught:
        store.lock("a", UNTIL, final=True)
    assert caught.value.reason == "ImmutabilityNotSupported"
    assert "version-level immutability" in caught.value.remedy and "versioning" in caught.value.remedy
    assert list(store.locks("")) == list(store.locked_versions("")) == []
    assert isinstance(store, LockingStore)


def test_the_request_is_a_policy_on_the_blob(store: LockingBlobStore) -> None:
    store.put("b", b"1")
    seen: list[Any] = []
    store._container._pipeline._transport.open()
    send = store._container._pipeline._transport._transport.send

    def watch(request: Any, **more: Any) -> Any:
        seen.append(request)
        return send(request, **more)

    store._container._pipeline._transport._transport.send = watch
    try:
        with pytest.raises(StopFault):
            store.lock("b", UNTIL, final=False)
    finally:
        store._container._pipeline._transport._transport.send = send
    request = seen[0]  # whom a busy Azurite does not answer asks again
    assert request.method == "PUT" and "comp=immutabilityPolicies" in request.url
    assert request.headers["x-ms-immutability-policy-mode"] == "Unlocked"
    assert request.headers["x-ms-immutability-policy-until-date"] == "Fri, 02 Jan 2099 03:04:05 GMT"
