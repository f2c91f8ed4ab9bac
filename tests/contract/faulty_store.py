"""Stores that misbehave on purpose, around a real one: lost answers, storms of 503, torn writes, deaths."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from tests.contract.memory_store import MemoryStore

from farshore_engine.contract.faults import WaitFault
from farshore_engine.vault.store import ObjectStore, Version


class Killed(BaseException):
    """The process died here. A BaseException, so that nothing in the product catches it."""


class WrappedStore:
    """Passes every call on; subclasses override `before` and `after`."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.lock = threading.Lock()

    def before(self, operation: str, name: str) -> None: ...

    def after(self, operation: str, name: str) -> None: ...

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        self.before("put", name)
        version = self.inner.put(name, data, create_only=create_only)
        self.after("put", name)
        return version

    def put_if(self, name: str, data: bytes | bytearray | memoryview, version: Version) -> Version:
        self.before("put_if", name)
        found = self.inner.put_if(name, data, version)
        self.after("put_if", name)
        return found

    def get(self, name: str) -> tuple[bytes, Version]:
        self.before("get", name)
        return self.inner.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.before("get_range", name)
        return self.inner.get_range(name, offset, length)

    def head(self, name: str) -> int:
        self.before("head", name)
        return self.inner.head(name)

    def list(self, prefix: str) -> Iterator[str]:
        self.before("list", prefix)
        return self.inner.list(prefix)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        self.before("list", prefix)
        return self.inner.sizes(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        self.before("list", prefix)
        return self.inner.folders(prefix)

    def delete(self, name: str) -> None:
        self.before("delete", name)
        self.inner.delete(name)
        self.after("delete", name)


class RecordingStore(WrappedStore):
    """Keeps what was done, in order; `on(operation, name)` may raise or wait before it is done."""

    def __init__(self, inner: ObjectStore, on: Callable[[str, str], None] | None = None) -> None:
        super().__init__(inner)
        self.calls: list[tuple[str, str]] = []
        self.on = on

    def before(self, operation: str, name: str) -> None:
        if self.on is not None:
            self.on(operation, name)
        with self.lock:
            self.calls.append((operation, name))


class DyingStore(WrappedStore):
    """Dies (raises Killed) at the n-th operation that changes something, before or right after it took effect."""

    def __init__(self, inner: ObjectStore, at: int, *, after_effect: bool) -> None:
        super().__init__(inner)
        self.left = at
        self.after_effect = after_effect
        self.dead = False

    def before(self, operation: str, name: str) -> None:
        if self.dead:
            raise Killed
        if operation in ("put", "put_if", "delete") and not self.after_effect:
            self._count()

    def after(self, operation: str, name: str) -> None:
        if self.after_effect:
            self._count()

    def _count(self) -> None:
        with self.lock:
            self.left -= 1
            if self.left < 0:
                self.dead = True
                raise Killed


class FaultyStore(WrappedStore):
    """Fails as told: `plan(operation, name)` gives None, "503" (nothing happens) or "lost" (it happens, no answer)."""

    def __init__(self, inner: ObjectStore, plan: Callable[[str, str], str | None]) -> None:
        super().__init__(inner)
        self.plan = plan
        self.faults = 0
        self.local = threading.local()  # threads use the store at the same time

    def _fault(self, what: str) -> WaitFault:
        self.faults += 1
        return WaitFault(f"injected: {what}", reason="Injected")

    def before(self, operation: str, name: str) -> None:
        self.local.todo = self.plan(operation, name)
        if self.local.todo == "503":
            raise self._fault("503")

    def after(self, operation: str, name: str) -> None:
        if self.local.todo == "lost":
            raise self._fault("lost answer")


class TornStore(WrappedStore):
    """Acknowledges puts of chosen names and stores only their first half: a store that breaks its promise."""

    def __init__(self, inner: ObjectStore, torn: Callable[[str], bool]) -> None:
        super().__init__(inner)
        self.torn = torn

    def put(self, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False) -> Version:
        content = bytes(data)
        return self.inner.put(
            name, content[: len(content) // 2] if self.torn(name) else content, create_only=create_only
        )


class ForgetfulStore(WrappedStore):
    """A store that loses what it acknowledged last when it crashes, as Azurite does when it is killed.

    `crash_before(operation, name)` may answer how many of the last changes to take back before it is done.
    """

    def __init__(self, inner: MemoryStore, crash_before: Callable[[str, str], int] = lambda *_: 0) -> None:
        super().__init__(inner)
        self.memory = inner
        self.crash_before = crash_before
        self.undo: list[dict[str, tuple[bytes, Version]]] = []

    def before(self, operation: str, name: str) -> None:
        lost = self.crash_before(operation, name)
        if lost:
            self.crash(lost)
        if operation in ("put", "put_if", "delete"):
            with self.lock:
                self.undo.append(dict(self.memory.objects))

    def crash(self, lost: int) -> None:
        """Take back the last `lost` changes."""
        with self.lock:
            lost = min(lost, len(self.undo))
            if lost:
                self.memory.objects = self.undo[-lost]
                del self.undo[-lost:]


class UnreliableStore(WrappedStore):
    """A store in bad weather, seeded: it is slow, operations overtake each other, answers and requests get lost, and
    now and then it answers nothing but 503 for a while. Every promise of `ObjectStore` is kept.

    Args:
        rate: how often an operation is disturbed, 0 to 1.
        slow: seconds that an operation may take, so that concurrent ones complete in another order.
        kinds: of these: "503" (nothing happens), "lost" (it happens, the answer is lost), "storm" (503 for a while),
            "slow".
    """

    def __init__(self, inner: ObjectStore, seed: int, kinds: Sequence[str], *, rate: float = 0.1) -> None:
        super().__init__(inner)
        self.chance = random.Random(seed)
        self.kinds = kinds
        self.rate = rate
        self.storm = 0  # operations that are still refused
        self.calm = False
        self.faults = 0
        self.local = threading.local()

    def before(self, operation: str, name: str) -> None:
        with self.lock:
            self.local.lose, pause = False, 0.0
            if self.calm:
                return
            refused = self.storm > 0
            self.storm = max(0, self.storm - 1)
            if not refused and self.chance.random() < self.rate:
                kind = self.chance.choice(self.kinds)
                if kind == "storm" and self.chance.random() < 0.7:
                    return  # it lasts, so it is rarer
                self.local.lose = kind == "lost"
                refused = kind in ("503", "storm")
                if kind == "storm":
                    self.storm = self.chance.randint(1, 6)
                if kind == "slow":
                    pause = self.chance.random() * 0.003
            self.faults += refused or self.local.lose
        if pause:
            time.sleep(pause)
        if refused:
            raise WaitFault(f"injected: {operation} {name} was refused", reason="Injected", retry_after=0)

    def after(self, operation: str, name: str) -> None:
        if self.local.lose:
            self.local.lose = False
            raise WaitFault(f"injected: the answer to {operation} {name} was lost", reason="Injected", retry_after=0)


class StaleListStore(WrappedStore):
    """Lists show the names as they were up to `lag` changes ago, and no two lists the same moment. All else is right.

    No store that Farshore supports does this; it must degrade, and never lose a point.
    """

    def __init__(self, inner: ObjectStore, seed: int, *, lag: int = 12) -> None:
        super().__init__(inner)
        self.chance = random.Random(seed)
        self.lag = lag
        self.moments: list[dict[str, int]] = [{}]

    def after(self, operation: str, name: str) -> None:
        with self.lock:
            now = dict(self.moments[-1])
            if operation == "delete":
                now.pop(name, None)
            else:
                now[name] = self.inner.head(name)
            self.moments = [*self.moments[-self.lag :], now]

    def _moment(self) -> dict[str, int]:
        with self.lock:
            return self.chance.choice(self.moments) if self.lag else self.moments[-1]

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(name for name in self._moment() if name.startswith(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        yield from sorted((name, size) for name, size in self._moment().items() if name.startswith(prefix))
