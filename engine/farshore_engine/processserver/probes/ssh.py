"""SSH: does the server greet, or does a command end well?

The command runs as the login's user, without sudo. The host key of a recovered machine may be another one than the
source's, and the machine was made by this very host, so any key is taken.
"""

from __future__ import annotations

import asyncio
import shlex

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import ProbeSpec
from farshore_engine.machines.probe import greeting
from farshore_engine.processserver.probes.question import Logins, Place, brief
from farshore_engine.processserver.push.ssh import Completed, connect


def ask_ssh(spec: ProbeSpec, place: Place, logins: Logins, seconds: float) -> str:
    """See `Question`."""
    if not spec.command:
        try:
            return greeting((place.address, place.port), seconds)
        except OSError as error:
            raise WaitFault(f"port {spec.port}: {error.strerror or error}", reason="NoGreeting") from error
    if logins.ssh is None:
        raise StopFault(
            "the machine's SSH credentials are not known to this process server",
            "Name them in spec.source.credentialsSecretRef of the ProtectedVM",
            reason="NoCredentials",
        )
    source = Source(address=place.address, port=place.port, credentials=logins.ssh)
    done = asyncio.run(_run(source, shlex.join(spec.command), seconds))
    said = brief(done.stdout.strip() or done.stderr.strip()) or "nothing"
    if done.status != 0:
        raise WaitFault(f"the command ended with {done.status} and said: {brief(done.said())}", reason="CommandFailed")
    return f"the command ended with 0 and said: {said}"


async def _run(source: Source, command: str, seconds: float) -> Completed:
    async with connect(source) as connection:
        return await connection.execute(command, timeout=seconds)
