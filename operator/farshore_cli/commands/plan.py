"""`farshore plan`: what the operator would do if the manifests of a pull request were applied."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


class PlanFormat(StrEnum):
    """For people, for a pull request, for programs."""

    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


@app.command("plan")
def plan(
    paths: Annotated[list[Path], typer.Argument(help="Files and directories with manifests.")],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="For objects that name none. Default: the current context's.")
    ] = "",
    output: Annotated[PlanFormat, typer.Option("--output", "-o", help="How to show it.")] = PlanFormat.TEXT,
) -> None:
    """Show what the operator would do if these manifests were applied. Nothing is changed.

    It reads the cluster and asks for server-side dry runs; where those are not allowed, it checks the schema and says
    so. Exit code 0: no machine is moved and nothing is in the way. 2: a failover, failback, commit, abort, change of
    point or reprotect would start. 3: something is refused or could not start. 1: it could not find out.
    """
    from farshore_cli.planning import render
    from farshore_cli.planning.cluster import KubeCluster
    from farshore_cli.planning.manifests import read
    from farshore_cli.planning.report import report
    from farshore_cli.status import utc_now
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment

    tree = read(paths, namespace or current_namespace())
    found = report(tree, KubeCluster(Client(from_environment(), "farshore-cli")), utc_now)
    shapes = {
        PlanFormat.TEXT: render.as_text,
        PlanFormat.MARKDOWN: render.as_markdown,
        PlanFormat.JSON: render.as_json,
    }
    print(shapes[output](found))
    raise typer.Exit(int(found.verdict))
