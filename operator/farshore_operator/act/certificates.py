"""Signs certificate requests with the namespace's CA. A repetition signs again, for the same key and name."""

from __future__ import annotations

from farshore_operator.act import authority
from farshore_operator.act.effects import Effects
from farshore_operator.crypto.certificates import sign_machine, sign_process_server
from farshore_operator.decide.actions import Certified, SignMachine, SignProcessServer
from farshore_operator.decide.decision import Outcome


def perform_process_server(effects: Effects, action: SignProcessServer) -> tuple[Outcome, ...]:
    """Sign a process server's request."""
    ca = authority.load(effects, action.namespace)
    life = effects.timing.certificate_life
    signed = sign_process_server(ca, action.request, action.address, effects.now(), life)
    return (Certified(signed.certificate, ca.certificate, signed.expires),)


def perform_machine(effects: Effects, action: SignMachine) -> tuple[Outcome, ...]:
    """Sign a machine's request."""
    ca = authority.load(effects, action.namespace)
    signed = sign_machine(ca, action.request, action.machine_id, effects.now(), effects.timing.certificate_life)
    return (Certified(signed.certificate, ca.certificate, signed.expires),)
