"""`farshore run`: what a FailoverRun does and did, step by step."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import StopFault

app = typer.Typer()


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="Name of the FailoverRun, as in the plan's status.activeRun.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
) -> None:
    """Show a run step by step. Exit code 1: it failed."""
    from farshore_cli import runstory
    from farshore_operator.api import FailoverRun
    from farshore_operator.api.failoverrun import RunPhase
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment
    from farshore_operator.kube.resources import FAILOVER_RUN

    client, where = Client(from_environment(), "farshore-cli"), namespace or current_namespace()
    if follow:
        found = runstory.follow(client, where, name, print if output is Format.TABLE else lambda _: None)
    else:
        body = client.get(FAILOVER_RUN, where, name)
        if body is None:
            raise StopFault(f"there is no FailoverRun {where}/{name}", "`kubectl get failoverruns` lists them")
        found = FailoverRun.of(body)
        if output is Format.TABLE:
            print("\n".join([runstory.heading(found), *runstory.news(None, found)]))
    if output is Format.JSON:
        print(json.dumps({"name": name, "spec": found.spec.dump(), "status": found.status.dump()}, indent=2))
    if found.status.phase in (RunPhase.FAILED, RunPhase.ABORTED):
        raise typer.Exit(1)
