"""Puts the operator together: `farshore operator` calls `run`; `kopf run -m farshore_operator.main` works too."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

import kopf
import structlog

from farshore_engine.contract.faults import StopFault
from farshore_operator.handlers.health import HealthServer
from farshore_operator.handlers.runtime import Runtime
from farshore_operator.kube import connection, watch
from farshore_operator.kube.client import Client
from farshore_operator.kube.watch import Sink
from farshore_operator.report import logs
from farshore_operator.settings import Settings

MANAGER = "farshore-operator"

log = structlog.get_logger(__name__)


def _sink(memo: Any) -> Sink:
    sink: Sink = memo.runtime.told
    return sink


watch.register(kopf.get_default_registry(), _sink)
kopf.on.login()(watch.login)


@kopf.on.startup(errors=kopf.ErrorsMode.PERMANENT)
async def _start(settings: kopf.OperatorSettings, memo: Any, **_: Any) -> None:
    watch.configure(settings)
    chosen: Settings = memo.get("settings") or Settings.from_environment()
    client = Client(connection.from_environment(), MANAGER)
    runtime = Runtime(chosen, client, f"{socket.gethostname()}-{os.getpid()}", asyncio.get_running_loop())
    memo.runtime = runtime
    address = (chosen.health_host, chosen.health_port)
    memo.health = HealthServer(address, runtime.live, runtime.ready, runtime.metrics.registry)
    memo.health.start()
    log.info("the operator starts", health_port=memo.health.port, namespaces=chosen.namespaces or "all")
    await runtime.start()


@kopf.on.cleanup()
async def _stop(memo: Any, **_: Any) -> None:
    await memo.runtime.stop()
    memo.health.stop()


def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        StopFault: it cannot start here, for a reason that trying again does not heal.
    """
    logs.configure(settings.log_level, settings.log_format)
    connection.from_environment()
    _check_port(settings.health_host, settings.health_port)
    asyncio.run(_operate(settings))


def _check_port(host: str, port: int) -> None:
    """Find out that the health port is taken where it can be said in a sentence, and not in kopf's traceback."""
    try:
        socket.create_server((host, port), reuse_port=False).close()
    except OSError as error:
        raise StopFault(
            f"the health port {host}:{port} cannot be opened: {error.strerror or error}",
            "Choose another one with --health-port; 0 takes a free one",
            reason="HealthPortTaken",
        ) from error


async def _operate(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await kopf.operator(
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
        memo=kopf.Memo(settings=settings),
    )
