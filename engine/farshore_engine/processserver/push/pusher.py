"""The `Installer` of the process server: everything that reaches into a source machine over SSH, in plain calls.

Each call runs its own event loop, so calls from different threads do not touch each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from farshore_engine.bundle.build import Bundle, build_bundle
from farshore_engine.contract.assignment import Source
from farshore_engine.processserver.installer import AgentIdentity, DataPort, InstallOutcome, PreflightOutcome
from farshore_engine.processserver.push import install as steps
from farshore_engine.processserver.push.checklist import Needs
from farshore_engine.processserver.push.preflight import run_preflight
from farshore_engine.processserver.push.shutdown import shutdown


def needs_of(bundle: Bundle) -> Needs:
    """Return what a machine must have for a bundle."""
    return Needs(bundle.id, bundle.archive_bytes, bundle.unpacked_bytes, bundle.kernel, bundle.cpu_flags)


class PushInstaller:
    """Implements `farshore_engine.processserver.installer.Installer`.

    Args:
        bundle: what to push; built from the running code when None.
        now: the clock that machines' clocks are compared with.
    """

    def __init__(self, bundle: Bundle | None = None, now: Callable[[], float] = time.time) -> None:
        self._bundle = bundle
        self._now = now

    @property
    def bundle(self) -> Bundle:
        """Return the bundle, built at the first use and again if the cache has lost it."""
        if self._bundle is None or not Path(self._bundle.path).exists():
            self._bundle = build_bundle()
        return self._bundle

    def preflight(self, source: Source, data_port: DataPort | None) -> PreflightOutcome:
        """Run every check without changing the machine."""
        return asyncio.run(run_preflight(source, data_port, needs_of(self.bundle), self._now))

    def install(self, source: Source, identity: AgentIdentity, progress: Callable[[str], None]) -> InstallOutcome:
        """Put the agent in place and start it, or do nothing when it is current."""
        return asyncio.run(steps.install(source, identity, self.bundle, progress))

    def uninstall(self, source: Source) -> None:
        """Stop the agent and remove it."""
        asyncio.run(steps.uninstall(source))

    def shutdown(self, source: Source, asking: Callable[[], None] = lambda: None) -> bool:
        """Power the machine off; returns whether it was seen to be off."""
        return asyncio.run(shutdown(source, asking))

    def bundle_version(self) -> str:
        """Return the id of the bundle that `install` pushes."""
        return self.bundle.id
