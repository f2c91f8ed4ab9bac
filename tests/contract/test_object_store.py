"""What `ObjectStore` promises, on every implementation."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient
from tests.contract.blob_container import blob_container, real_store
from tests.contract.memory_store import MemoryStore

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.vault.azure_store import AzureBlobStore, client_options
from farshore_engine.vault.directory_store import LEFT_BEHIND, DirectoryStore
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, ObjectStore, VersionMismatch


@pytest.fixture(params=["directory", "azure", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, container_name: str) -> Iterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        with real_store(request, tmp_path, container_name) as store:
            yield store


def test_what_was_put_is_got_back(store: ObjectStore) -> None:
    data = os.urandom(9 << 20)
    version = store.put("a/pack", memoryview(data))
    assert store.get("a/pack") == (data, version)
    assert store.head("a/pack") == len(data)
    store.put("a/empty", b"")
    assert store.get("a/empty")[0] == b""


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        pytest.param(0, 3, b"abc", id="from the start"),
        pytest.param(7, 3, b"hij", id="to the end"),
        pytest.param(8, 100, b"ij", id="past the end gives what there is"),
        pytest.param(10, 5, b"", id="behind the end gives nothing"),
        pytest.param(4, 0, b"", id="no length gives nothing"),
    ],
)
def test_a_range(store: ObjectStore, offset: int, length: int, expected: bytes) -> None:
    store.put("x", b"abcdefghij")
    assert store.get_range("x", offset, length) == expected


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda s: s.get("no/such"), id="get"),
        pytest.param(lambda s: s.get_range("no/such", 0, 1), id="range"),
        pytest.param(lambda s: s.head("no/such"), id="head"),
    ],
)
def test_what_is_not_there_is_not_found(store: ObjectStore, ask: Callable[[ObjectStore], object]) -> None:
    with pytest.raises(ObjectNotFound):
        ask(store)


def test_a_folder_is_not_an_object(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    with pytest.raises(ObjectNotFound):
        store.get("a")


def test_create_only_keeps_the_first(store: ObjectStore) -> None:
    version = store.put("slot", b"first", create_only=True)
    with pytest.raises(AlreadyExists):
        store.put("slot", b"second", create_only=True)
    with pytest.raises(AlreadyExists):
        store.put("slot", b"first", create_only=True)
    assert store.get("slot") == (b"first", version)


def test_a_conditional_put_needs_the_version(store: ObjectStore) -> None:
    first = store.put("x", b"1")
    second = store.put_if("x", b"2", first)
    assert second != first
    with pytest.raises(VersionMismatch):
        store.put_if("x", b"3", first)
    assert store.get("x") == (b"2", second)
    store.delete("x")
    with pytest.raises(VersionMismatch):
        store.put_if("x", b"4", second)
    with pytest.raises(ObjectNotFound):
        store.get("x")


@pytest.mark.parametrize("kind", ["create-only", "conditional"])
def test_of_sixteen_racing_puts_one_wins(store: ObjectStore, kind: str) -> None:
    version = store.put("race", b"base") if kind == "conditional" else ""
    start = threading.Barrier(16)

    def run(number: int) -> int | None:
        start.wait()
        try:
            if version:
                store.put_if("race", str(number).encode(), version)
            else:
                store.put("race", str(number).encode(), create_only=True)
        except (AlreadyExists, VersionMismatch):
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [n for n in pool.map(run, range(16)) if n is not None]
    assert len(winners) == 1
    assert store.get("race")[0] == str(winners[0]).encode()


def test_a_reader_never_sees_a_part(store: ObjectStore) -> None:
    contents = [bytes([n]) * (300_000 + n) for n in range(4)]
    store.put("x", contents[0])
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            store.put("x", contents[turn % 4])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = [store.get("x")[0] for _ in range(60)]
        stop.set()
        writing.result()
    assert all(data in contents for data in seen)


def test_names_are_listed_in_order(store: ObjectStore) -> None:
    names = [
        "m/a.b/chain/000000000002",
        "m/a.b/chain/000000000010",
        "m/a.b/chain/base",
        "m/a-b/x",
        "m/ab/y",
        "m/a.b/key.json",
    ]
    for name in names:
        store.put(name, b"")
    assert list(store.list("m/")) == sorted(names)
    assert list(store.list("m/a.b/chain/")) == sorted(n for n in names if "chain" in n)
    assert list(store.list("m/a.b/chain/0000000000")) == ["m/a.b/chain/000000000002", "m/a.b/chain/000000000010"]
    assert list(store.list("nothing/")) == []
    assert sorted(store.list("")) == sorted(names)


def test_sizes_and_folders(store: ObjectStore) -> None:
    for name, size in (("m/a/x", 3), ("m/a/y/z", 0), ("m/ab/x", 70_000), ("m/c", 1), ("n/d/x", 2)):
        store.put(name, bytes(size))
    assert list(store.sizes("m/")) == [("m/a/x", 3), ("m/a/y/z", 0), ("m/ab/x", 70_000), ("m/c", 1)]
    assert list(store.folders("m/")) == ["a", "ab"]
    assert list(store.folders("m/a")) == ["", "b"]
    assert list(store.folders("")) == ["m", "n"]
    assert list(store.folders("none/")) == []
    store.delete("n/d/x")
    assert list(store.folders("")) == ["m"]


def test_deleting_is_repeatable(store: ObjectStore) -> None:
    store.put("a/x", b"1")
    store.delete("a/x")
    store.delete("a/x")
    store.delete("never/was")
    assert list(store.list("a/")) == []
    store.put("a/x", b"2", create_only=True)
    assert store.get("a/x")[0] == b"2"


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.tmp/x", ".tmp", "a b", "a\\b", "ä", "x" * 600]
)
def test_a_name_that_leaves_the_store_is_refused(store: ObjectStore, name: str) -> None:
    with pytest.raises(ValueError, match="not an object name"):
        store.put(name, b"")
    with pytest.raises(ValueError, match="not an object name"):
        store.get(name)


def test_many_threads_upload_at_once(store: ObjectStore) -> None:
    def put(number: int) -> None:
        store.put(f"p/{number:03d}", number.to_bytes(4, "big") * 1000, create_only=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(40)))
    assert [store.get(n)[0][:4] for n in store.list("p/")] == [n.to_bytes(4, "big") for n in range(40)]


class LosingTransport(RequestsTransport):  # type: ignore[misc]
    """Carries requests out and loses the answers to the first `lose` puts."""

    def __init__(self, lose: int) -> None:
        super().__init__()
        self.lose = lose

    def send(self, request: Any, **kwargs: Any) -> Any:
        answer = super().send(request, **kwargs)
        if request.method == "PUT" and self.lose > 0:
            self.lose -= 1
            raise ServiceResponseError("the connection was reset")
        return answer


@pytest.fixture
def losing(azurite: Any, container_name: str) -> Iterator[Callable[[int], AzureBlobStore]]:
    with blob_container(azurite, container_name):

        def connect(lose: int) -> AzureBlobStore:
            options = client_options() | {"transport": LosingTransport(lose)}
            client = BlobServiceClient(azurite.account_url, credential=azurite.key, **options)
            return AzureBlobStore(client.get_container_client(container_name))

        yield connect


def test_a_put_whose_answer_was_lost_succeeds(losing: Callable[[int], AzureBlobStore]) -> None:
    """Azure answers "already exists" to the retry of a create-only put that had worked."""
    version = losing(1).put("slot", b"mine", create_only=True)
    assert losing(0).get("slot") == (b"mine", version)
    replaced = losing(1).put_if("slot", b"mine again", version)
    assert losing(0).get("slot") == (b"mine again", replaced)


def test_a_lost_answer_does_not_hide_another_writer(losing: Callable[[int], AzureBlobStore]) -> None:
    losing(0).put("slot", b"theirs")
    with pytest.raises(AlreadyExists):
        losing(1).put("slot", b"mine", create_only=True)
    with pytest.raises(VersionMismatch):
        losing(0).put_if("slot", b"mine", '"0x8D0000000000000"')


def _azure(azurite: Any, container: str, **changes: Any) -> AzureBlobStore:
    arguments = {"account_url": azurite.account_url, "credential": azurite.key} | changes
    deadline = 1.0 if "account_url" in changes else 60.0  # to wait for who never answers, and for an answer
    return AzureBlobStore.connect(arguments["account_url"], container, arguments["credential"], deadline=deadline)


@pytest.mark.parametrize(
    ("changes", "family", "reason"),
    [
        pytest.param({}, StopFault, "ContainerMissing", id="the container is missing"),
        pytest.param({"credential": "d3Jvbmcga2V5"}, StopFault, "StorageAccessRefused", id="the key is wrong"),
        pytest.param(
            {"account_url": "http://127.0.0.1:9/devstoreaccount1"}, WaitFault, "StorageUnreachable", id="nobody answers"
        ),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda s: s.put("x", b"1"), id="put"),
        pytest.param(lambda s: s.put_if("x", b"1", '"0x8D0000000000000"'), id="conditional put"),
        pytest.param(lambda s: s.get("x"), id="get"),
        pytest.param(lambda s: s.head("x"), id="head"),
        pytest.param(lambda s: list(s.list("")), id="list"),
        pytest.param(lambda s: s.delete("x"), id="delete"),
    ],
)
def test_a_refusal_says_what_where_and_what_to_do(
    azurite: Any,
    container_name: str,
    changes: dict[str, str],
    family: type[Fault],
    reason: str,
    ask: Callable[[AzureBlobStore], object],
) -> None:
    with pytest.raises(family) as caught:
        ask(_azure(azurite, container_name, **changes))
    assert caught.value.reason == reason
    assert container_name in caught.value.message
    assert caught.value.remedy
    assert azurite.key not in str(caught.value)


def test_a_malformed_connection_string_is_not_repeated() -> None:
    with pytest.raises(StopFault) as caught:
        AzureBlobStore.from_connection_string("AccountKey=secret", "c")
    assert "secret" not in str(caught.value)


def test_a_directory_that_may_not_be_written_is_a_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Fault) as caught:
        DirectoryStore(tmp_path / "file")
    assert str(tmp_path) in caught.value.message


def test_reading_a_directory_leaves_it_alone(tmp_path: Path) -> None:
    """Somebody who mistypes the path, or reads a copy on a read-only medium, must not leave folders behind."""
    for place in (tmp_path, tmp_path / "typo"):
        store = DirectoryStore(place)
        assert list(store.list("")) == list(store.sizes("")) == list(store.folders("machines/")) == []
        with pytest.raises(ObjectNotFound):
            store.get("vault.json")
    assert list(tmp_path.iterdir()) == []


def test_what_a_directory_acknowledged_has_no_other_trace(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"1", create_only=True)
    with pytest.raises(AlreadyExists):
        store.put("a", b"2", create_only=True)
    store.put("a", b"3")
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    """It stayed for ever. What another process may still be writing stays."""
    DirectoryStore(tmp_path).put("a", b"1")
    old, young = tmp_path / ".tmp" / "dead-0", tmp_path / ".tmp" / "alive-0"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (old.stat().st_atime, old.stat().st_mtime - 2 * LEFT_BEHIND))
    store = DirectoryStore(tmp_path)
    assert old.exists()  # reading changes nothing
    store.get("a")
    assert old.exists()
    store.put("b", b"2")
    assert not old.exists() and young.exists()
    assert list(store.list("")) == ["a", "b"]
