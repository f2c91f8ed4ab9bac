"""Puts a process server together: the engine, the control plane behind it, and the way into machines."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farshore_operator.kube.appliance.control import KubernetesControlPlane
    from farshore_operator.kube.appliance.statedir import Registration, StateDir


@dataclass(frozen=True)
class Options:
    """What the command line says: state directory, address to listen on, address to tell machines, metrics port."""

    state: Path
    listen: str
    advertise: str
    metrics_port: int
    machines: Path | None = None  # run directory of machines of this host that were always here
    cloud_machine: str = ""  # name of this host's own machine at an Azure Stack Hub
    cloud_disks: Path | None = None  # directory with a link lunN to each data disk's device


def run(registration: Registration, state: StateDir, options: Options) -> None:
    """Run until SIGTERM or SIGINT."""
    from farshore_operator.kube.appliance.control import KubernetesControlPlane

    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    control = KubernetesControlPlane(registration, state)
    control.start()
    try:
        _serve(control, options, stop)
    finally:
        control.stop()
    _leave()


def _leave() -> None:
    """End now, although an upload still waits for a vault that does not answer: what it holds is in the spool."""
    left = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if left:
        logging.shutdown()
        sys.stderr.flush()
        os._exit(0)


def _serve(control: KubernetesControlPlane, options: Options, stop: threading.Event) -> None:
    from farshore_engine.azurestack.mastertarget import Host, device_of
    from farshore_engine.azurestack.setting import HubSetting
    from farshore_engine.processserver.push import PushInstaller
    from farshore_engine.processserver.service import ProcessServer, Settings

    device = device_of
    if options.cloud_disks is not None:
        device = partial(device_of, links=(f"{options.cloud_disks}/lun{{lun}}",))
    settings = Settings(
        state_dir=options.state,
        address=options.advertise,
        listen_address=options.listen,
        metrics_port=options.metrics_port or None,
        machines_dir=options.machines,
        hub=HubSetting(Host(options.cloud_machine, device=device)),
    )
    ProcessServer(control, PushInstaller(), settings).run(stop)
