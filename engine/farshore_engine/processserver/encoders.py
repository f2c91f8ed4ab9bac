"""The threads that compress and encrypt, shared fairly: each machine has a queue, and the queues are served in turn."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class FairEncoders(Executor):
    """An executor that is one of many `lane`s. Futures that have not begun are cancelled by `shutdown`."""

    def __init__(self, threads: int) -> None:
        """Start `threads` threads."""
        self._changed = threading.Condition()
        self._lanes: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()  # with work, next turn first
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"encoder-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def lane(self, name: str) -> Executor:
        """Return the executor as one machine sees it."""
        return _Lane(self, name)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in the lane without a name."""
        return self.put("", fn, *args, **kwargs)

    def put(self, lane: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` when the lane's turn comes; raises RuntimeError after `shutdown`."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                future.set_exception(error)

        with self._changed:
            if self._closed:
                raise RuntimeError("the encoders are shut down")
            self._lanes.setdefault(lane, deque()).append(work)
            self._changed.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See Executor."""
        with self._changed:
            self._closed = True
            if cancel_futures:
                self._lanes.clear()
            self._changed.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lanes or self._closed)
                if not self._lanes:
                    return
                name, works = self._lanes.popitem(last=False)
                work = works.popleft()
                if works:
                    self._lanes[name] = works  # behind the others
            work()


class _Lane(Executor):
    """One machine's view."""

    def __init__(self, encoders: FairEncoders, name: str) -> None:
        self._encoders = encoders
        self._name = name

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._encoders.put(self._name, fn, *args, **kwargs)

    def map(self, fn: Callable[..., T], /, *iterables: Any, timeout: float | None = None, chunksize: int = 1) -> Any:
        return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize)
