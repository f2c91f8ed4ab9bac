"""What the engine takes for threads, locks, clocks and executors while it is simulated.

`replaced(world)` puts these in the place of the standard library's in every module of the engine, and takes them away.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import pkgutil
import random
import secrets
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.simulation.world import EPOCH, Killed, Stuck, Task, World, here


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


class Future:
    """concurrent.futures.Future."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._state = "pending"
        self._result: Any = None
        self._error: BaseException | None = None
        self._calls: list[Callable[[Any], object]] = []

    def __class_getitem__(cls, item: object) -> type:
        return cls

    def cancel(self) -> bool:
        with self._changed:
            if self._state in ("running", "done"):
                return False
            if self._state == "cancelled":
                return True
            self._state = "cancelled"
            self._changed.notify_all()
        self._tell()
        return True

    def cancelled(self) -> bool:
        return self._state == "cancelled"

    def running(self) -> bool:
        return self._state == "running"

    def done(self) -> bool:
        return self._state in ("done", "cancelled")

    def result(self, timeout: float | None = None) -> Any:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done():
            with self._changed:
                if not self._changed.wait_for(self.done, timeout):
                    raise TimeoutError
        if self._state == "cancelled":
            raise concurrent.futures.CancelledError
        return self._error

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        if self.done():
            call(self)
        else:
            self._calls.append(call)

    def set_running_or_notify_cancel(self) -> bool:
        if self._state == "cancelled":
            return False
        self._state = "running"
        return True

    def set_result(self, result: Any) -> None:
        self._finish(result, None)

    def set_exception(self, error: BaseException | None) -> None:
        self._finish(None, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        with self._changed:
            self._result, self._error, self._state = result, error, "done"
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call(self)


class Executor:
    """ThreadPoolExecutor: at most so many tasks at a time, each gone when there is no work."""

    def __init__(
        self, max_workers: int | None = None, thread_name_prefix: str = "pool", *args: Any, **kwargs: Any
    ) -> None:
        self._most = max_workers or 4
        self._name = thread_name_prefix
        self._jobs: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._workers = 0
        self._idle = Condition()
        self._closed = False

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        world: World = here()
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = Future()
        if world.task is None or world.inline:
            self._do(future, lambda: call(*args, **kwargs))
            return future
        world.check_alive()
        self._jobs.append((future, lambda: call(*args, **kwargs)))
        if self._workers < self._most:
            self._workers += 1
            world.spawn(world.task.process, self._name, self._work)
        return future

    def map(self, call: Callable[..., Any], *several: Iterable[Any], timeout: float | None = None) -> Iterator[Any]:
        futures = [self.submit(call, *arguments) for arguments in zip(*several, strict=False)]

        def results() -> Iterator[Any]:
            try:
                while futures:
                    yield futures.pop(0).result()
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        if cancel_futures:
            while self._jobs:
                self._jobs.popleft()[0].cancel()
        if wait and self._workers:
            with self._idle:
                self._idle.wait_for(lambda: self._workers == 0)

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(error[1], Killed):
            return
        self.shutdown(wait=True)

    def _work(self) -> None:
        while self._jobs:
            future, job = self._jobs.popleft()
            if not future.cancelled():
                self._do(future, job)
        self._workers -= 1
        with self._idle:
            self._idle.notify_all()

    @staticmethod
    def _do(future: Future, job: Callable[[], Any]) -> None:
        future._state = "running"
        try:
            result = job()
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001 - as the real one does
            future.set_exception(error)
        else:
            future.set_result(result)


def _module(real: types.ModuleType, **names: Any) -> types.ModuleType:
    """A module that is the real one but for some names."""
    fake = types.ModuleType(real.__name__)
    fake.__dict__.update({k: v for k, v in vars(real).items() if not k.startswith("__")})
    fake.__dict__.update(names)
    return fake


def monotonic() -> float:
    return 1000.0 + here().now  # type: ignore[no-any-return]


def wall_clock() -> float:
    return EPOCH + here().now  # type: ignore[no-any-return]


def sleep(seconds: float) -> None:
    here().sleep(seconds)


def _token_bytes(size: int | None = None) -> bytes:
    return here().chance.randbytes(32 if size is None else size)  # type: ignore[no-any-return]


THREADING = _module(
    threading,
    Lock=Lock,
    RLock=RLock,
    Condition=Condition,
    Event=Event,
    Semaphore=Semaphore,
    BoundedSemaphore=Semaphore,
    Thread=Thread,
    local=Shared,
    current_thread=current_thread,
)
TIME = _module(
    time,
    monotonic=monotonic,
    time=wall_clock,
    sleep=sleep,
    perf_counter=monotonic,
    monotonic_ns=lambda: int(monotonic() * 1e9),
    time_ns=lambda: int(wall_clock() * 1e9),
)
SECRETS = _module(
    secrets,
    token_bytes=_token_bytes,
    token_hex=lambda size=None: _token_bytes(size).hex(),
    randbits=lambda bits: here().chance.getrandbits(bits),
)
RANDOM = _module(random, Random=lambda *seed: random.Random(*(seed or (here().chance.random(),))))

PLACES: dict[int, Any] = {
    id(real): (real, fake)
    for real, fake in (
        (threading, THREADING),
        (time, TIME),
        (secrets, SECRETS),
        (random, RANDOM),
        (threading.Lock, Lock),
        (threading.RLock, RLock),
        (threading.Condition, Condition),
        (threading.Event, Event),
        (threading.Thread, Thread),
        (time.monotonic, monotonic),
        (time.time, wall_clock),
        (time.sleep, sleep),
        (random.Random, RANDOM.Random),
        (concurrent.futures.ThreadPoolExecutor, Executor),
        (concurrent.futures.Future, Future),
    )
}
PARTS = ("agent", "vault", "hydrate", "processserver", "blocks", "wire")


@functools.cache
def engine_modules() -> list[types.ModuleType]:
    """Import and return every module of the parts that are simulated."""
    found = []
    for part in PARTS:
        package = importlib.import_module(f"farshore_engine.{part}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".push" not in info.name:
                importlib.import_module(info.name)
    for name, module in sorted(sys.modules.items()):
        if name.startswith(tuple(f"farshore_engine.{part}" for part in PARTS)):
            found.append(module)
    return found


def _fake_of(value: object) -> Any:
    entry = PLACES.get(id(value))
    return entry[1] if entry is not None and entry[0] is value else None


Change = tuple[Callable[[Any], None], Any, Any]  # how to set it, what it is really, what it is while simulated


def _in_function(function: types.FunctionType) -> Iterator[Change]:
    """Defaults of arguments, and what a dataclass's `__init__` took hold of."""
    defaults = function.__defaults__
    if defaults and any(_fake_of(d) is not None for d in defaults):
        fakes = tuple(_fake_of(d) or d for d in defaults)
        yield functools.partial(setattr, function, "__defaults__"), defaults, fakes
    keywords = function.__kwdefaults__
    if keywords and any(_fake_of(d) is not None for d in keywords.values()):
        others = {k: _fake_of(d) or d for k, d in keywords.items()}
        yield functools.partial(setattr, function, "__kwdefaults__"), keywords, others
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        fake = _fake_of(value)
        if fake is not None:
            yield functools.partial(setattr, cell, "cell_contents"), value, fake


def _in_module(module: types.ModuleType) -> Iterator[Change]:
    for name, value in list(vars(module).items()):
        fake = _fake_of(value)
        if fake is not None:
            yield functools.partial(setattr, module, name), value, fake
        elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
            yield from _in_function(value)
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for member in vars(value).values():
                function = getattr(member, "__func__", member)
                if isinstance(function, types.FunctionType):
                    yield from _in_function(function)


@functools.cache
def _changes(modules: tuple[types.ModuleType, ...]) -> list[Change]:
    return [change for module in modules for change in _in_module(module)]


@contextmanager
def replaced(modules: list[types.ModuleType]) -> Iterator[None]:
    """Let the engine run on the simulated primitives."""
    changes = _changes(tuple(modules))
    try:
        for change, _, fake in changes:
            change(fake)
        yield
    finally:
        for change, real, _ in changes:
            change(real)
