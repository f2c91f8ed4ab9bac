"""Runs the hooks that bring applications to rest before a freeze and release them after it.

A hook is a program that root calls as `NAME pre`, and later as `NAME post`: those in a directory of the machine
(`/etc/farshore/hooks.d`, in the order of their names) and the shipped ones that its ProtectedVM names. Posts run in
reverse order, and always for every hook whose pre was begun: a record in the runtime directory is there before a pre
starts and until its post has ended, so that the next agent, or the service manager after the death of this one, runs
what is owed. No hook runs while a file system is frozen.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from farshore_engine.agent.hookprocess import run_hook
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.mounts import Mount

log = logging.getLogger(LOGGER_NAME)

SHIPPED_DIR = Path(__file__).parent / "shipped"
LEFT_OUT = ("~", ".disabled", ".bak", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".rpmnew", ".rpmsave")
OWED_TIMEOUT = 30.0  # seconds for a post that an earlier agent owed


@dataclass(frozen=True, slots=True)
class HookOrder:
    """How a point uses hooks; times in seconds.

    Attributes:
        shipped: names of shipped hooks that the ProtectedVM asks for.
        timeout: what one call of a hook may take.
        window: what may pass from the first pre to the last post.
    """

    shipped: tuple[str, ...] = ()
    timeout: float = 30.0
    window: float = 60.0


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook and how it is called; `refused` says why it must not run."""

    name: str
    command: tuple[str, ...]
    refused: str = ""


@dataclass(slots=True)
class _Owed:
    """What the record holds: the hooks whose post is still to run, in the order of their pres."""

    point: str
    environment: dict[str, str]
    hooks: list[Hook] = field(default_factory=list)


class Hooks:
    """Finds hooks, and keeps the record of those whose post is owed.

    Args:
        runtime_dir: a tmpfs, so that no record outlives the machine's boot.
        directory: the machine's own hooks.
        shipped_dir: those that came with the agent.
        clock: seconds, monotonic.
        phases: the words with which a hook is called first, and later.
    """

    def __init__(
        self,
        runtime_dir: Path,
        directory: Path,
        shipped_dir: Path = SHIPPED_DIR,
        clock: Callable[[], float] = time.monotonic,
        phases: tuple[str, str] = ("pre", "post"),
    ) -> None:
        self._phases = phases
        self.directory = directory
        self.clock = clock
        self._shipped_dir = shipped_dir
        self._runtime_dir = runtime_dir
        self._record = runtime_dir / "hooks.json"

    def find(self, shipped: tuple[str, ...]) -> list[Hook]:
        """Return the hooks in the order of their pres; one of the machine's own replaces a shipped one of its name."""
        found = {path.name: _own(path) for path in self._own_files()}
        for name in shipped:
            found.setdefault(name, _shipped(self._shipped_dir / name, self.directory / f"{name}.conf"))
        return [found[name] for name in sorted(found)]

    def begin(self, point: str, order: HookOrder, mounts: list[Mount]) -> Quiet:
        """Prepare one attempt; nothing runs yet."""
        environment = {
            "FARSHORE_POINT": point,
            "FARSHORE_HOOKS": str(self.directory),
            "FARSHORE_TIMEOUT": f"{order.timeout:.0f}",
            "FARSHORE_WINDOW": f"{order.window:.0f}",
            "FARSHORE_MOUNTS": "\n".join(mount.point for mount in mounts),
        }
        return Quiet(self, _Owed(point, environment), self.find(order.shipped), order)

    def owe(self, point: str) -> _Owed:
        """Begin a record of hooks for `run_pre` and `run_posts` without an attempt's window; nothing runs yet."""
        return _Owed(point, {"FARSHORE_POINT": point, "FARSHORE_HOOKS": str(self.directory)})

    def run_owed(self) -> list[str]:
        """Run the posts that an earlier agent owed; returns the names of their hooks."""
        try:
            raw = json.loads(self._record.read_text(encoding="utf-8"))
            hooks = [Hook(h["name"], tuple(h["command"])) for h in raw["hooks"]]
            owed = _Owed(raw["point"], raw["environment"], hooks)
        except (OSError, ValueError, KeyError, TypeError):
            return []
        names = [hook.name for hook in owed.hooks]
        owed.environment["FARSHORE_ABANDONED"] = "1"
        self.run_posts(owed, OWED_TIMEOUT)
        return names

    def run_pre(self, owed: _Owed, hook: Hook, timeout: float) -> str:
        """Run one pre, noted down before; returns what went wrong, "" for nothing."""
        owed.hooks.append(hook)
        try:
            self._write(owed)
        except OSError as error:
            owed.hooks.pop()
            return f"was not run: it cannot be recorded: {error}"
        return run_hook(hook.name, (*hook.command, self._phases[0]), self._environment(owed, hook), timeout, self.clock)

    def run_posts(self, owed: _Owed, timeout: float) -> list[str]:
        """Run every post that is owed, the last pre's first; returns what went wrong."""
        wrong = []
        while owed.hooks:
            hook = owed.hooks[-1]
            environment = self._environment(owed, hook)
            command = (*hook.command, self._phases[1])
            problem = run_hook(hook.name, command, environment, timeout, self.clock)
            if problem:
                wrong.append(f"the {self._phases[1]} hook {hook.name} {problem}")
            owed.hooks.pop()
            with suppress(OSError):
                self._write(owed)
        return wrong

    def _environment(self, owed: _Owed, hook: Hook) -> dict[str, str]:
        state = self._runtime_dir / "hooks" / hook.name
        with suppress(OSError):
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {**owed.environment, "FARSHORE_STATE": str(state)}

    def _write(self, owed: _Owed) -> None:
        if not owed.hooks:
            self._record.unlink(missing_ok=True)
            return
        self._runtime_dir.mkdir(parents=True, exist_ok=True)
        temporary = self._record.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(owed)), encoding="utf-8")
        temporary.replace(self._record)

    def _own_files(self) -> list[Path]:
        try:
            paths = list(self.directory.iterdir())
        except OSError:
            return []
        return [p for p in paths if not p.name.startswith(".") and not p.name.endswith(LEFT_OUT) and _runnable(p)]


class Quiet:
    """The hooks of one attempt at a point: `pre`, then the freeze, then `post` whatever happened.

    Attributes:
        held: whether every pre succeeded and nothing has gone wrong since: the point is application-consistent.
        notes: why it is not, for the point.
    """

    def __init__(self, hooks: Hooks, owed: _Owed, found: list[Hook], order: HookOrder) -> None:
        self._hooks = hooks
        self._owed = owed
        self._found = found
        self._order = order
        self._ends = 0.0
        self.held = False
        self.notes: list[str] = []

    def rest(self, precopy: Callable[[Callable[[], bool] | None], None]) -> None:
        """Run the pres, and send what the applications then wrote, within the window.

        Args:
            precopy: sends rounds of dirty blocks until what it is given returns True; None for no end.
        """
        if self.pre():
            precopy(self.over)
            self.check()
        if not self.held:
            precopy(None)

    def check(self) -> None:
        """To be called just before the freeze: if the window has passed, release the applications now."""
        if self.over():
            self.held = False
            self._blame(f"the hooks' window of {self._order.window:.0f} s ended before the freeze could begin")
            self.post()

    def pre(self) -> bool:
        """Bring the applications to rest; if one fails, release all at once and return False."""
        if not self._found:
            self._blame(
                f"there is no hook: put one into {self._hooks.directory} or name one in spec.source.applicationHooks"
            )
            return False
        self._ends = self._hooks.clock() + self._order.window
        for hook in self._found:
            problem = hook.refused
            if not problem:
                left = self._ends - self._hooks.clock()
                timeout = min(self._order.timeout, left)
                problem = self._hooks.run_pre(self._owed, hook, timeout) if left > 0 else "had no time left"
            if problem:
                self._blame(f"the pre hook {hook.name} {problem}")
                self.post()
                return False
        self.held = True
        return True

    def over(self) -> bool:
        """Whether the window has passed."""
        return self.held and self._hooks.clock() >= self._ends

    def post(self) -> None:
        """Release the applications; safe to call again."""
        late = self.over()
        wrong = self._hooks.run_posts(self._owed, self._order.timeout)
        if self.held and (late or wrong):
            self.held = False
            self._blame("; ".join(wrong) or f"the hooks' window of {self._order.window:.0f} s ended inside the freeze")

    def _blame(self, reason: str) -> None:
        self.notes.append(f"the point is only crash-consistent: {reason}")
        log.warning("a point is only crash-consistent", extra={"fields": {"reason": reason}})


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _own(path: Path) -> Hook:
    return Hook(path.name, (str(path),), _unsafe(path))


def _shipped(path: Path, settings: Path) -> Hook:
    if not path.is_file():
        return Hook(path.name, (), "is not among the shipped ones")
    return Hook(path.name, ("/bin/sh", str(path)), _unsafe(settings) if settings.exists() else "")


def _unsafe(path: Path) -> str:
    """A file that others than root could change must not run as root, nor one in such a directory."""
    for place in (path.resolve(), path.parent):
        status = place.stat()
        if status.st_uid != 0:
            return f"was refused: {place} belongs to user {status.st_uid}, not to root (chown root {place})"
        if status.st_mode & (stat.S_IWOTH | stat.S_IWGRP):
            return f"was refused: others than root may write to {place} (chmod go-w {place})"
    return ""
