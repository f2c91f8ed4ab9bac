"""`farshore operator`: runs the operator. The chart's Deployment calls exactly this."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from farshore_cli.formats import LogFormat, LogLevel

app = typer.Typer()


@app.command("operator")
def operator(
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Namespace to serve; repeatable. Default: all.")
    ] = None,
    health_port: Annotated[int, typer.Option(help="Port of /livez, /readyz and /metrics; 0: a free one.")] = 8080,
    health_host: Annotated[str, typer.Option(help="Address of the health port.")] = "0.0.0.0",
    log_level: Annotated[LogLevel, typer.Option(help="What to log, and what is graver.")] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="How to log.")] = LogFormat.JSON,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Reconciliations that run side by side.")] = 8,
    azure_interval: Annotated[
        float, typer.Option(min=0.2, help="Seconds between two looks at vaults of engine siteRecovery.")
    ] = 15.0,
) -> None:
    """Run the operator: converge the cluster's Farshore resources until it is told to stop."""
    from farshore_operator.main import run
    from farshore_operator.settings import Settings, Timing

    run(
        Settings(
            namespaces=tuple(namespace or ()),
            health_host=health_host,
            health_port=health_port,
            log_level=log_level,
            log_format=log_format,
            workers=workers,
            timing=Timing(site_recovery=timedelta(seconds=azure_interval)),
        )
    )
