"""TCP: does a port accept connections?"""

from __future__ import annotations

import socket

from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import ProbeSpec
from farshore_engine.processserver.probes.question import Logins, Place


def ask_tcp(spec: ProbeSpec, place: Place, logins: Logins, seconds: float) -> str:
    """See `Question`."""
    try:
        with socket.create_connection((place.address, place.port), timeout=seconds):
            return f"port {spec.port} accepts connections"
    except OSError as error:
        raise WaitFault(f"port {spec.port}: {error.strerror or error}", reason="NoConnection") from error
