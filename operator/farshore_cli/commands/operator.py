"""`farshore operator`: runs the operator. The chart's Deployment calls exactly this."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "text")


@app.command("operator")
def operator(
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Namespace to serve; repeatable. Default: all.")
    ] = None,
    health_port: Annotated[int, typer.Option(help="Port of /livez, /readyz and /metrics; 0: a free one.")] = 8080,
    health_host: Annotated[str, typer.Option(help="Address of the health port.")] = "0.0.0.0",
    log_level: Annotated[str, typer.Option(help=f"One of {', '.join(LEVELS)}.")] = "info",
    log_format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")] = "json",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Reconciliations that run side by side.")] = 8,
) -> None:
    """Run the operator: converge the cluster's Farshore resources until it is told to stop."""
    from farshore_operator.main import run
    from farshore_operator.settings import Settings

    if log_level not in LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(LEVELS)}", param_hint="--log-level")
    if log_format not in FORMATS:
        raise typer.BadParameter(f"{log_format!r} is none of {', '.join(FORMATS)}", param_hint="--log-format")
    run(
        Settings(
            namespaces=tuple(namespace or ()),
            health_host=health_host,
            health_port=health_port,
            log_level=log_level,
            log_format=log_format,
            workers=workers,
        )
    )
