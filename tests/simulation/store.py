"""The vault's store as each process sees it: slow, at times away or flaky, and deaf to whoever asked when it is done.

A request leaves, takes effect, and is answered: a process may die or be stalled before each of these, and a request
that has left may take effect after the death of its sender.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.contract.memory_store import MemoryStore
from tests.simulation.world import Process, World

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.store import Version

T = TypeVar("T")
Effect = Callable[[str, str, bytes], None]


@dataclass
class Weather:
    """What is wrong with the store now. Shares of the requests, and seconds."""

    away: bool = False
    refused: float = 0.0  # 503, without an effect
    lost: float = 0.0  # answers that are lost after the effect
    slow: float = 0.02


class SimulatedStore:
    """One process's way to the store. `after` is told of each change, at the moment at which it takes effect."""

    def __init__(self, world: World, inner: MemoryStore, process: Process, weather: Weather, after: Effect) -> None:
        self._world = world
        self._inner = inner
        self._process = process
        self._weather = weather
        self._after = after
        self._numbers = itertools.count()

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        content = bytes(data)

        def effect() -> Version:
            version = self._inner.put(name, content, create_only=create_only)
            self._after("put", name, content)
            return version

        return self._ask(f"put {name}", effect, changes=True)

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        content = bytes(data)

        def effect() -> Version:
            found = self._inner.put_if(name, content, version)
            self._after("put_if", name, content)
            return found

        return self._ask(f"put_if {name}", effect, changes=True)

    def get(self, name: str) -> tuple[bytes, Version]:
        return self._ask(f"get {name}", lambda: self._inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._ask(f"get {name}", lambda: self._inner.get_range(name, offset, length))

    def head(self, name: str) -> int:
        return self._ask(f"head {name}", lambda: self._inner.head(name))

    def list(self, prefix: str) -> Iterator[str]:
        yield from self._ask(f"list {prefix}", lambda: list(self._inner.list(prefix)))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from self._ask(f"list {prefix}", lambda: list(self._inner.sizes(prefix)))

    def __getattr__(self, name: str) -> Any:
        """What the port has besides and does not change anything."""
        found = getattr(self._inner, name)
        return (
            (lambda *arguments: self._ask(f"{name} {arguments}", lambda: found(*arguments)))
            if callable(found)
            else found
        )

    def delete(self, name: str) -> None:
        def effect() -> None:
            self._inner.delete(name)
            self._after("delete", name, b"")

        self._ask(f"delete {name}", effect, changes=True)

    def _ask(self, what: str, effect: Callable[[], T], changes: bool = False) -> T:
        world, weather = self._world, self._weather
        if world.task is None or world.inline:
            return effect()
        if weather.away:
            world.sleep(world.chance.uniform(0.5, 3))
            if weather.away:
                raise WaitFault(f"the store is away: {what}", reason="StorageUnreachable")
        number = next(self._numbers)
        if changes:
            self._process.ghosts[number] = lambda: _ignoring(effect)
        if world.chance.random() < 0.3:
            world.sleep(world.chance.uniform(0, weather.slow))
        else:
            world.give_way()
        self._process.ghosts.pop(number, None)
        if world.chance.random() < weather.refused:
            raise WaitFault(f"503: {what}", reason="StorageThrottled")
        answer = effect()
        if changes:
            world.note(what)
        world.give_way()
        if world.chance.random() < weather.lost:
            raise WaitFault(f"no answer: {what}", reason="StorageUnreachable")
        return answer


def _ignoring(effect: Callable[[], Any]) -> None:
    try:
        effect()
    except Exception:  # noqa: BLE001 - nobody hears the answer
        return
