"""Powers a machine off over SSH, and tells from outside whether it is off."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.processserver.push.poweroff import POWEROFF_SCRIPT
from farshore_engine.processserver.push.ssh import connect

SHUTDOWN_SECONDS = 180.0
OFF_ANSWERS = 3  # unanswered connections in a row, a second apart, before the machine counts as off


async def shutdown(
    source: Source, asking: Callable[[], None] = lambda: None, seconds: float = SHUTDOWN_SECONDS
) -> bool:
    """Power the machine off and watch its SSH port until it is silent.

    A machine that cannot be reached to begin with raises: from here nobody can tell whether it is off or cut off.

    Args:
        source: the machine.
        asking: called when everything is ready for the machine to be asked.
        seconds: how long to watch.
    """
    async with connect(source) as connection:
        await connection.elevate()
        asking()
        try:
            result = await connection.script(POWEROFF_SCRIPT, timeout=30)
        except WaitFault:
            pass  # the connection dies with the machine: the port tells
        else:
            if result.status > 0:
                raise StopFault(
                    f"{connection.address} could not be powered off: {result.said()}",
                    "Power it off by hand, or set shutdownSource: Never",
                    reason="ShutdownFailed",
                )
    deadline = time.monotonic() + seconds
    silent = 0
    while time.monotonic() < deadline:
        silent = 0 if await _answers(source) else silent + 1
        if silent >= OFF_ANSWERS:
            return True
        await asyncio.sleep(1)
    return False


async def _answers(source: Source) -> bool:
    """Whether the machine shows a sign of life: sshd greets, or its kernel refuses the port.

    A shutdown stops sshd early, so a refused port is a machine that still runs; on this host's own addresses it is a
    forwarder whose machine is gone. A port that a forwarder accepts without a greeting behind it does not count.
    """
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(source.address, source.port)
            try:
                return bool(await reader.read(1))
            finally:
                writer.close()
    except ConnectionRefusedError:
        return not _forwarded(source.address)
    except (OSError, TimeoutError):
        return False


def _forwarded(address: str) -> bool:
    """Whether an address is this host's own, so that a forwarder answers there and not the machine."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
