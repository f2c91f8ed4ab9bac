"""The agent as an object: finds its disks, tracks them for as long as it lives, and keeps a session going."""

from __future__ import annotations

import logging
import os
import random
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from farshore_engine.agent import exclusion, snapshot
from farshore_engine.agent.channel import dial, tls_context
from farshore_engine.agent.config import AgentConfig, Server
from farshore_engine.agent.description import describe
from farshore_engine.agent.disks import DiskWatch
from farshore_engine.agent.final import PHASES, PowerOff, no_power_off
from farshore_engine.agent.freezing import Freezer
from farshore_engine.agent.hooks import Hooks
from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.mounts import Mount, current_mounts, devices_on, file_systems
from farshore_engine.agent.parts import DisksChanged, Identity, Machine, Parts, Refused, Stopping
from farshore_engine.agent.point import PointMaker
from farshore_engine.agent.sampling import SampleCursor
from farshore_engine.agent.session import Session
from farshore_engine.agent.source import READ_DEPTH, Reader
from farshore_engine.agent.tracker.interface import Sink, TrackedDisk, Tracker
from farshore_engine.agent.tracker.probe import Choice, start_best
from farshore_engine.agent.tracking import Tracking, begin, go_on
from farshore_engine.agent.watchdog import Watchdog
from farshore_engine.contract.faults import StopFault
from farshore_engine.wire.frames import PeerClosed, WireError
from farshore_engine.wire.messages import DiskInfo

log = logging.getLogger(LOGGER_NAME)

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 30.0  # seconds
NO_DISK_SECONDS = 3.0  # between two looks for a disk when all are gone
STEADY_SECONDS = 10.0  # a session that lasted so long was none of those that end as soon as they begin

TrackerStart = Callable[[tuple[TrackedDisk, ...], Sink], Choice]


@dataclass(frozen=True, slots=True)
class Variants:
    """Parts that a test replaces: to look inside a freeze, or to build in a fault and show that it is noticed."""

    reader: Callable[[str], Reader] = Reader
    tracker: Callable[[tuple[TrackedDisk, ...]], Tracker] | None = None
    clear_before_read: bool = True
    on_frozen: Callable[[str], None] | None = None


@dataclass(slots=True)
class _Backoff:
    """Waits that double, with jitter, up to a bound."""

    step: float = FIRST_BACKOFF
    chance: random.Random = field(default_factory=random.Random)

    def next(self) -> float:
        wait = self.step * (0.5 + self.chance.random())
        self.step = min(self.step * 2, LAST_BACKOFF)
        return wait


class Agent:
    """Protects the machine's disks until `stop` is called.

    Args:
        config: what to protect and whom to dial.
        variants: for tests.
        reread: gives the configuration as it is now; servers and certificates are taken from it at each dial, so that
            another process server or a renewed certificate costs no restart (and so no gap in tracking).
        power_off: cuts the machine's power, at the end of a planned failover.
    """

    def __init__(
        self,
        config: AgentConfig,
        variants: Variants | None = None,
        reread: Callable[[], AgentConfig] | None = None,
        power_off: PowerOff = no_power_off,
    ) -> None:
        self._config = config
        self._reread = reread
        self._variants = variants or Variants()
        self._stop = threading.Event()
        self._hooks = Hooks(config.runtime_dir, config.hooks_dir)
        self._services = Hooks(config.runtime_dir / "stop", config.stop_dir, phases=PHASES)
        self._power_off = power_off
        self._watch = DiskWatch(config.disks)
        self._tracked = False  # whether there was a disk at any time
        self._sampled = SampleCursor()
        self._ready = config.runtime_dir / "ready"
        self.watchdog = Watchdog(config.interpreter)

    def stop(self) -> None:
        """Ask for a clean end; safe in a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Work until `stop`; raises StopFault when the configuration cannot work on this machine."""
        self._unready()
        freezer = Freezer(self.watchdog, self._config.runtime_dir)
        if thawed := freezer.thaw_leftovers():
            log.warning("thawed what an earlier agent left frozen", extra={"fields": {"mounts": thawed}})
        if undone := snapshot.clean_up():
            log.warning("undid the snapshots that an earlier agent left", extra={"fields": {"volumes": undone}})
        if owed := self._hooks.run_owed():
            log.warning("ran the post hooks that an earlier agent owed", extra={"fields": {"hooks": owed}})
        if owed := self._services.run_owed():
            log.warning("started services that an earlier agent had stopped", extra={"fields": {"hooks": owed}})
        context = tls_context(self._config)
        tracking: Tracking | None = None
        try:
            self.watchdog.start()
            while not self._stop.is_set():
                tracking = self._track(tracking)
                self._say_ready()
                if tracking is None:
                    self._stop.wait(NO_DISK_SECONDS)
                    continue
                try:
                    self._protect(tracking, freezer, context)
                except DisksChanged:
                    log.warning("the disks have changed")
        finally:
            self._unready()
            self.watchdog.stop()
            if tracking is not None:
                tracking.choice.tracker.stop()

    def _say_ready(self) -> None:
        """Tell who installs: this process could use its configuration and found its disks."""
        if self._ready.exists():
            return
        with suppress(OSError):
            self._ready.parent.mkdir(parents=True, exist_ok=True)
            partial = self._ready.with_suffix(".new")
            partial.write_text(f"{os.getpid()}\n", encoding="ascii")
            partial.replace(self._ready)

    def _unready(self) -> None:
        with suppress(OSError):
            self._ready.unlink()

    def _track(self, before: Tracking | None) -> Tracking | None:
        """Track the disks that are there now, without a gap for those that were tracked before; None if all are gone.

        Raises:
            StopFault: there is no disk to protect at the start.
        """
        try:
            disks = self._watch.look()
        except StopFault as fault:
            if not self._tracked:
                raise
            log.error("%s", fault, extra={"fields": {"reason": fault.reason}})
            if before is not None:
                before.choice.tracker.stop()
            return None
        self._tracked = True
        if before is None:
            return begin(disks, self._variants.clear_before_read, self._config.machine_id, self._start_tracker)
        return go_on(before, disks, self._start_tracker)

    def _protect(self, tracking: Tracking, freezer: Freezer, context: ssl.SSLContext) -> None:
        """Replicate one set of disks, through any number of connections; raises DisksChanged."""
        config, ledger, choice = self._config, tracking.ledger, tracking.choice
        with ExitStack() as stack:
            try:
                readers = {d.id: self._variants.reader(d.path) for d in tracking.protected}
            except OSError as error:  # it went away just now
                log.warning("a disk cannot be opened", extra={"fields": {"error": str(error)}})
                self._stop.wait(FIRST_BACKOFF)
                return
            for reader in readers.values():
                stack.callback(reader.close)
            workers = stack.enter_context(ThreadPoolExecutor(READ_DEPTH, thread_name_prefix="reader"))
            log.info("tracking", extra={"fields": {"disks": list(readers), "tracker": choice.reason}})
            machine = self._machine(tracking, readers)
            points = PointMaker(
                ledger,
                choice.tracker,
                readers,
                freezer,
                workers,
                (config.frozen_buffer, config.frozen_buffer_most),
                self._hooks,
                self._variants.on_frozen,
            )
            parts = Parts(ledger, points, workers, config.unacknowledged_limit, config.freeze_bound, self._stop.is_set)
            parts.sampled, parts.services, parts.power_off = self._sampled, self._services, self._power_off
            self._keep_connected(context, tracking.identity, machine, parts)

    def _start_tracker(self, disks: tuple[TrackedDisk, ...], ledger: Ledger) -> Choice:
        config = self._config
        config.state_dir.mkdir(parents=True, exist_ok=True)
        if self._variants.tracker is not None:
            tracker = self._variants.tracker(disks)
            tracker.start(ledger)
            return Choice(tracker, "chosen by the caller")
        return start_best(disks, config.state_dir, config.machine_id[:24], ledger, config.tracker)

    def _machine(self, tracking: Tracking, readers: dict[str, Reader]) -> Machine:
        protected, ledger = tracking.protected, tracking.ledger

        def mounts() -> list[Mount]:
            devices = set().union(*(devices_on(d.name) for d in protected))
            return file_systems(devices, current_mounts())

        def refresh() -> None:
            for disk in protected:
                ledger.exclude(disk.id, exclusion.swap_blocks(disk))

        return Machine(
            disks=tuple(DiskInfo(d.id, d.name, d.size) for d in protected),
            readers=readers,
            tracker=tracking.choice.tracker,
            tracker_reason=tracking.choice.reason,
            mounts=mounts,
            describe=lambda: describe(tracking.disks, self._config.recovery_dir),
            refresh=refresh,
            changed=self._watch.changed,
        )

    def _whom_to_dial(
        self, servers: tuple[Server, ...], context: ssl.SSLContext
    ) -> tuple[tuple[Server, ...], ssl.SSLContext]:
        """Read servers and certificates again; what was known stays when they cannot be read at the moment."""
        if self._reread is None:
            return servers, context
        try:
            config = self._reread()
            return config.servers, tls_context(config)
        except StopFault as fault:
            log.warning("%s", fault, extra={"fields": {"reason": fault.reason}})
            return servers, context

    def _keep_connected(self, context: ssl.SSLContext, identity: Identity, machine: Machine, parts: Parts) -> None:
        """Dial the servers in turn for ever."""
        servers = self._config.servers
        backoff = _Backoff()
        turn = 0
        while not self._stop.is_set():
            servers, context = self._whom_to_dial(servers, context)
            server = servers[turn % len(servers)]
            fields: dict[str, object] = {"server": f"{server.host}:{server.port}"}
            wait = backoff.next()
            try:
                channel = dial(server, context)
            except OSError as error:
                turn += 1
                log.warning("a process server cannot be reached", extra={"fields": {**fields, "error": str(error)}})
                self._stop.wait(wait)
                continue
            began, acknowledged = time.monotonic(), parts.ledger.acked
            try:
                Session(channel, identity, machine, parts).run()
            except Stopping:
                return
            except Refused as error:
                turn += 1
                wait = max(wait, error.retry_after if len(servers) == 1 else 0.0)
                log.warning("refused", extra={"fields": {**fields, "error": str(error), "retrySeconds": wait}})
            except (PeerClosed, WireError, OSError) as error:
                turn += 1
                log.warning("the session ended", extra={"fields": {**fields, "error": str(error)}})
                # On a line that breaks often, what gets through still counts: only idle sessions are spaced out.
                if time.monotonic() - began >= STEADY_SECONDS or parts.ledger.acked > acknowledged:
                    backoff = _Backoff()
            finally:
                channel.close()
            self._stop.wait(wait)
