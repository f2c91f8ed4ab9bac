"""The simulated world: a virtual clock and tasks of which one runs at a time, in an order that a seed decides.

A task is a greenlet and belongs to a process. It gives way only where real threads may be preempted or block: at locks,
conditions, files, the network, the store. A process can be killed (as by SIGKILL: its tasks unwind, and nothing that
they do on the way out has an effect), and stalled and continued (as by SIGSTOP and SIGCONT).
"""

from __future__ import annotations

import heapq
import itertools
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

EPOCH = 1_767_225_600.0  # seconds: the date at which every schedule begins
STEP = 20e-6  # seconds of virtual time that a step of a task takes
PREEMPTED = 0.1  # share of the uncontended locks at which a task is preempted all the same
LOOK_AGAIN = 500_000  # steps after which a schedule counts as stuck


class Killed(BaseException):
    """The process of this task is dead. A BaseException, so that nothing in the product handles it."""


class Stuck(Exception):
    """The schedule goes round without end, or nothing can run any more although somebody waits."""


@dataclass(eq=False)
class Process:
    """What dies and stalls together."""

    name: str
    dead: bool = False
    stalled: bool = False
    tasks: set[Task] = field(default_factory=set)
    parked: list[Task] = field(default_factory=list)  # could run, if the process were not stalled
    ghosts: dict[int, Callable[[], None]] = field(default_factory=dict)  # requests that are on their way out


class Task(greenlet):
    """A thread of the simulation."""

    def __init__(self, world: World, process: Process, name: str, work: Callable[[], object]) -> None:
        super().__init__(self._main, world.hub)
        self.world = world
        self.process = process
        self.name = name
        self.work = work
        self.alive = True
        self.ticket = 0  # of the wait that it is in; a wake-up for an earlier one is ignored
        self.waiting = False
        self.woken = False
        self.joiners: list[Task] = []

    def __repr__(self) -> str:
        return f"{self.process.name}/{self.name}"

    def _main(self) -> None:
        try:
            self.work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - told by the schedule
            if not self.process.dead:
                self.world.crashes.append(f"{self!r} died of {error!r}\n{traceback.format_exc()}")
        finally:
            self.alive = False
            self.process.tasks.discard(self)
            for task in self.joiners:
                self.world.wake(task, task.ticket)


class World:
    """The scheduler. Everything that is random in a schedule comes from `chance`."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.hub = getcurrent()
        self.now = 0.0  # seconds since the beginning
        self.steps = 0
        self.crashes: list[str] = []
        self.lines: deque[str] = deque(maxlen=4000)
        self.inline = 0  # above 0 nothing gives way: the auditor is at work
        self.ready: list[Task] = []
        self.outside = Process("world")
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._soon: deque[Callable[[], None]] = deque()
        self._straying: list[Callable[[], None]] = []
        self._processes: set[Process] = {self.outside}

    # -- tasks -----------------------------------------------------------------------------------------------------

    @property
    def task(self) -> Task | None:
        """The task that runs, None in the hub."""
        current = getcurrent()
        return current if isinstance(current, Task) else None

    def spawn(self, process: Process, name: str, work: Callable[[], object]) -> Task:
        """Start a task; in a dead process nothing starts."""
        if process.dead:
            raise Killed
        self._processes.add(process)
        task = Task(self, process, name, work)
        process.tasks.add(task)
        self.make_ready(task)
        return task

    def make_ready(self, task: Task) -> None:
        (task.process.parked if task.process.stalled else self.ready).append(task)

    def check_alive(self) -> None:
        """Raise Killed in a task of a dead process."""
        current = getcurrent()
        if isinstance(current, Task) and current.process.dead:
            raise Killed

    def give_way(self) -> None:
        """Let others run, if chance has it."""
        task = self.task
        if task is None or self.inline:
            return
        if task.process.dead:
            raise Killed
        self.make_ready(task)
        self.hub.switch()

    def maybe_give_way(self) -> None:
        """Give way now and then."""
        current = getcurrent()
        if isinstance(current, Task):
            if current.process.dead:
                raise Killed
            if not self.inline and self.chance.random() < PREEMPTED:
                self.give_way()

    def block(self, timeout: float | None = None) -> bool:
        """Wait to be woken; returns False when `timeout` seconds passed first."""
        task = self.task
        if task is None or self.inline:
            raise Stuck("the auditor, or the hub, would have to wait")
        if task.process.dead:
            raise Killed
        task.ticket += 1
        task.waiting, task.woken = True, False
        if timeout is not None:
            ticket = task.ticket
            self.after(max(timeout, 0.0), lambda: self._run_out(task, ticket))
        self.hub.switch()
        return task.woken

    def wake(self, task: Task, ticket: int | None = None) -> bool:
        """End a task's wait, if it is still the same one."""
        if not task.waiting or (ticket is not None and ticket != task.ticket):
            return False
        task.waiting, task.woken = False, True
        self.make_ready(task)
        return True

    def _run_out(self, task: Task, ticket: int) -> None:
        if task.waiting and task.ticket == ticket:
            task.waiting = False
            self.make_ready(task)

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass for the current task."""
        self.block(seconds)

    # -- processes -------------------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """End a process at once; from the hub or from a task of another process."""
        process.dead = True
        if self.task is not None:
            self._soon.append(lambda: self._unwind(process))
        else:
            self._unwind(process)

    def _unwind(self, process: Process) -> None:
        self.ready = [task for task in self.ready if task.process is not process]
        process.parked.clear()
        for task in sorted(process.tasks, key=lambda t: t.name):
            task.waiting = False
            if task:
                task.throw(Killed)
            else:
                task.alive = False
        process.tasks.clear()
        for effect in list(process.ghosts.values()):  # a request that left may still arrive
            if self.chance.random() < 0.5:
                self._straying.append(effect)
                self.after(self.chance.uniform(0, 3), lambda effect=effect: self._arrive(effect))  # type: ignore[misc]
        process.ghosts.clear()

    def _arrive(self, effect: Callable[[], None]) -> None:
        if effect in self._straying:
            self._straying.remove(effect)
            self.note("a request of a dead process arrives")
            effect()

    def forget_soon(self) -> None:
        """Requests of dead processes that are still on their way go nowhere: the store that they were for is gone."""
        self._straying.clear()

    def stall(self, process: Process) -> None:
        """Stop a process as by SIGSTOP."""
        process.stalled = True
        process.parked += [task for task in self.ready if task.process is process]
        self.ready = [task for task in self.ready if task.process is not process]

    def resume(self, process: Process) -> None:
        """Continue a stalled process."""
        if process.stalled:
            process.stalled = False
            self.ready += process.parked
            process.parked = []

    # -- time ------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something in the hub after virtual seconds."""
        self.at(self.now + seconds, call)

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Call something in the hub at a virtual time; what is for the same time comes in the order of these calls."""
        heapq.heappush(self._timers, (moment, next(self._numbers), call))

    def run(
        self, until: float, done: Callable[[], bool] = lambda: False, before: Callable[[], None] = lambda: None
    ) -> bool:
        """Run until a virtual time, or until `done`, which is looked at when time passes; `before` runs before a step.

        Returns whether `done` said so.
        """
        limit = self.steps + LOOK_AGAIN
        while self.now < until:
            while self._soon:
                self._soon.popleft()()
            if self._timers and (not self.ready or self._timers[0][0] <= self.now):
                if self._timers[0][0] > until and not self.ready:
                    self.now = until
                    break
                at, _, call = heapq.heappop(self._timers)
                self.now = max(self.now, at)
                call()
                if done():
                    return True
                continue
            if not self.ready:
                self.now = until
                break
            before()
            if not self.ready:
                continue
            at_random = self.chance.randrange(len(self.ready))
            self.ready[at_random], self.ready[-1] = self.ready[-1], self.ready[at_random]
            task = self.ready.pop()
            self.steps += 1
            self.now += STEP
            if self.steps > limit:
                raise Stuck(f"{LOOK_AGAIN} steps without an end; ready: {sorted(set(map(repr, self.ready)))}")
            if task.alive and not task.dead:
                task.switch()
        return done()

    def end(self) -> None:
        """Unwind what is left, so that nothing of this schedule runs later."""
        processes = sorted(self._processes, key=lambda p: p.name)
        for process in processes:
            process.dead = True
        for process in processes:
            self._unwind(process)
        self._timers.clear()

    # -- the trace -------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        who = repr(self.task) if self.task is not None else "-"
        self.lines.append(f"{self.now:10.4f} {self.steps:7d} {who:28s} {text}")


class _Current:
    """The world whose primitives the engine uses now."""

    def __init__(self) -> None:
        self.world: World | None = None

    def __call__(self) -> World:
        if self.world is None:
            raise RuntimeError("no world is simulated now")
        return self.world


here: Any = _Current()
