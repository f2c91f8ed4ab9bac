"""The SSH host key of a machine of this host, asked from the machine itself, for the operator to pin."""

from __future__ import annotations

import asyncio

import asyncssh

from farshore_engine.machines.spec import RunningMachine

SECONDS = 5.0


def host_key_of(running: RunningMachine) -> str:
    """Return type and base64 of the key on one line, "" for a machine that does not answer yet or has no SSH server."""
    return asyncio.run(ask_host_key(running.address, running.port))


async def ask_host_key(address: str, port: int) -> str:
    """Return the key of the SSH server at an address, as `host_key_of`."""
    try:
        async with asyncio.timeout(SECONDS):
            key = await asyncssh.get_server_host_key(address, port)
    except (OSError, asyncssh.Error, TimeoutError):
        return ""
    return " ".join(key.export_public_key("openssh").decode().split()[:2]) if key is not None else ""
