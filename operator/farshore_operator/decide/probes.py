"""From the probes of a manifest to the questions that a process server asks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from farshore_engine.contract.tasks import ProbeKind, ProbeSpec
from farshore_operator.api.failoverrun import FailoverRunSpec, RunMember
from farshore_operator.api.probe import DATABASE_PORTS, HTTPProbe, Probe, SQLProbe, SSHProbe, TCPProbe

MARGIN = timedelta(minutes=5)
"""How much longer than its probes the task of asking may take."""


def questions(probes: Iterable[Probe]) -> tuple[ProbeSpec, ...]:
    """Return what is to be asked, in the order of the manifest."""
    return tuple(_question(probe) for probe in probes)


def asked_of(spec: FailoverRunSpec, member: RunMember) -> tuple[Probe, ...]:
    """Return the probes of one machine of a run: the run's, then those of its group."""
    return (*spec.probes, *(probe for group in spec.groups if group.name == member.group for probe in group.probes))


def time_for(probes: Iterable[Probe], least: timedelta) -> timedelta:
    """Return how long asking may take altogether: the probes are asked side by side."""
    return max([least, *(probe.timeout + MARGIN for probe in probes)])


def login_secrets(probes: Iterable[ProbeSpec]) -> set[str]:
    """Return the names of the Secrets that the questions need."""
    return {probe.credentials_secret for probe in probes if probe.credentials_secret}


def logs_in(probes: Iterable[ProbeSpec]) -> bool:
    """Tell whether a question needs the machine's own SSH credentials."""
    return any(probe.kind is ProbeKind.SSH and probe.command for probe in probes)


def _question(probe: Probe) -> ProbeSpec:
    base = ProbeSpec(
        name=probe.name, kind=ProbeKind.TCP, port=0, timeout_seconds=max(1, int(probe.timeout.total_seconds()))
    )
    return base.model_copy(update=_details(probe.tcp or probe.http or probe.ssh or probe.sql))


def _details(asked: TCPProbe | HTTPProbe | SSHProbe | SQLProbe | None) -> dict[str, object]:
    match asked:
        case TCPProbe():
            return {"port": asked.port}
        case HTTPProbe():
            update = {"kind": ProbeKind.HTTP, "path": asked.path, "status": asked.status, "tls": asked.tls}
            return {**update, "port": asked.port}
        case SSHProbe():
            return {"kind": ProbeKind.SSH, "port": asked.port, "command": asked.command}
        case SQLProbe():
            secret = asked.credentials_secret_ref
            return {
                "kind": ProbeKind.SQL,
                "port": asked.port or DATABASE_PORTS[asked.engine],
                "engine": asked.engine.value,
                "query": asked.query,
                "database": asked.database or "",
                "tls": asked.tls,
                "credentials_secret": secret.name if secret else "",
            }
        case None:
            raise ValueError("a probe asks nothing, which the API server refuses")
