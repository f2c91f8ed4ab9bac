"""Puts simulated threads, locks, clocks, chances and executors in the place of the standard library's.

`replaced(modules)` does so in every module of the engine that took hold of one, and takes them away.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.simulation.futures import Executor, Future
from tests.simulation.threads import Condition, Event, Lock, RLock, Semaphore, Shared, Thread, current_thread
from tests.simulation.world import EPOCH, here


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
