"""What the engine takes for futures and executors while it is simulated."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.simulation.threads import Condition
from tests.simulation.world import Killed, World, here


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
