"""What the engine takes for threads and locks while it is simulated; `standins` puts them in their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from tests.simulation.world import Stuck, Task, World, here


class Lock:
    """threading.Lock and RLock (`again` says whether its owner may take it once more)."""

    again = False

    def __init__(self) -> None:
        self.owner: object = None
        self.count = 0
        self._waiters: deque[tuple[Task, int]] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        world: World = here()
        world.maybe_give_way()
        me = world.task or world.hub
        if self.again and self.owner is me:
            self.count += 1
            return True
        until = None if timeout < 0 else world.now + timeout
        while self.owner is not None:
            if not blocking or (until is not None and world.now >= until):
                return False
            if world.task is None:
                raise Stuck("the hub would have to wait for a lock")
            self._waiters.append((world.task, world.task.ticket + 1))
            world.block(None if until is None else until - world.now)
        self.owner, self.count = me, 1
        return True

    def release(self) -> None:
        world: World = here()
        world.check_alive()
        self.count -= 1
        if self.count == 0:
            self.owner = None
            while self._waiters:
                task, ticket = self._waiters.popleft()
                if world.wake(task, ticket):
                    break

    def locked(self) -> bool:
        return self.owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class RLock(Lock):
    again = True


class Condition:
    def __init__(self, lock: Lock | None = None) -> None:
        self._lock = lock if lock is not None else RLock()
        self._waiters: list[tuple[Task, int]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        world: World = here()
        task = world.task
        if task is None:
            raise Stuck("the hub would have to wait for a condition")
        world.check_alive()
        if self._lock.owner is not task:
            raise RuntimeError("cannot wait on un-acquired lock")
        count, self._lock.count = self._lock.count, 1
        self._waiters.append((task, task.ticket + 1))
        ticket = task.ticket + 1
        # The lock is let go and the wait begins in one step, as in the real one.
        self._lock.release()
        woken = world.block(timeout)
        self._waiters = [w for w in self._waiters if w != (task, ticket)]
        self._lock.acquire()
        self._lock.count = count
        return woken

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        world: World = here()
        until = None if timeout is None else world.now + timeout
        result = predicate()
        while not result:
            left = None if until is None else until - world.now
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        world: World = here()
        world.check_alive()
        while n > 0 and self._waiters:
            task, ticket = self._waiters.pop(0)
            n -= world.wake(task, ticket)

    def notify_all(self) -> None:
        self.notify(len(self._waiters))


class Event:
    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._set = False

    def is_set(self) -> bool:
        here().check_alive()
        return self._set

    def set(self) -> None:
        with self._changed:
            self._set = True
            self._changed.notify_all()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._set, timeout))


class Semaphore:
    def __init__(self, value: int = 1) -> None:
        self._changed = Condition(Lock())
        self._value = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: self._value > 0, timeout if blocking else 0):
                return False
            self._value -= 1
            return True

    def release(self, n: int = 1) -> None:
        with self._changed:
            self._value += n
            self._changed.notify(n)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Thread:
    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name or "thread"
        self.daemon = daemon
        self._target, self._args, self._kwargs = target, tuple(args), kwargs or {}
        self._task: Task | None = None

    def start(self) -> None:
        world: World = here()
        process = world.task.process if world.task is not None else world.outside
        self._task = world.spawn(process, self.name, self.run)
        self._task.thread = self  # type: ignore[attr-defined]

    def run(self) -> None:
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def is_alive(self) -> bool:
        return self._task is not None and self._task.alive

    def join(self, timeout: float | None = None) -> None:
        world: World = here()
        if self._task is None:
            raise RuntimeError("cannot join thread before it is started")
        if self._task is world.task:
            raise RuntimeError("cannot join current thread")
        until = None if timeout is None else world.now + timeout
        while self._task.alive and (until is None or world.now < until):
            assert world.task is not None
            self._task.joiners.append(world.task)
            world.block(None if until is None else until - world.now)


def current_thread() -> object:
    task = here().task
    return getattr(task, "thread", task)


class Local:
    """threading.local: attributes that each task has for itself."""

    def __init__(self) -> None:
        object.__setattr__(self, "_of", {})

    def _mine(self) -> dict[str, Any]:
        return self._of.setdefault(id(here().task), {})  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._mine()[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._mine()[name] = value


class Shared:
    """For threading.local where what is kept is never in use while a task gives way: made once, which is faster."""
