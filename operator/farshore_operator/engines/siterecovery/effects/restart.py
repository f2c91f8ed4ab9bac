"""Lets a job that failed go on, once its cause may be gone. It keeps its name."""

from __future__ import annotations

from farshore_operator.engines.siterecovery.calls import RestartJob
from farshore_operator.engines.siterecovery.client import VaultClient, begin


def restart_job(client: VaultClient, call: RestartJob) -> str:
    """Begin."""
    begin(f"restarting job {call.job}", client.site.replication_jobs.begin_restart, *client.at, call.job)
    return call.job
