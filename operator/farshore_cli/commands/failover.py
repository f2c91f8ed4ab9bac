"""`farshore failover`: moves all machines of a plan with one command, and tells the run as it happens.

It edits the plan as a commit in Git would, and everything that guards such an edit guards this one.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.formats import MoveMode, Place, Shutdown
from farshore_engine.contract.faults import StopFault, WaitFault

if TYPE_CHECKING:
    from farshore_operator.api import FailoverPlan
    from farshore_operator.kube.client import Client, Json

app = typer.Typer()

SEEN_WITHIN = 60.0
"""Seconds in which a running operator has seen an edit."""


@app.command("failover")
def failover(
    plan: Annotated[str, typer.Argument(help="Name of the FailoverPlan.")],
    to: Annotated[Place, typer.Option("--to", help="Where the machines should run.")],
    mode: Annotated[MoveMode | None, typer.Option(help="Default: what the plan says.")] = None,
    point: Annotated[str, typer.Option(help="Recovery point, as in the plan's recoveryPoint.")] = "",
    shutdown_source: Annotated[Shutdown | None, typer.Option(help="Default: what the plan says.")] = None,
    reason: Annotated[str, typer.Option(help="Why; on record, and demanded in an emergency past Git.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    follow: Annotated[bool, typer.Option(help="Tell the run until it is over.")] = True,
) -> None:
    """Move all machines of a plan to the recovery site, or back, and follow the run step by step.

    Exit code 0: the run succeeded (or began, with --no-follow). 1: it failed. 3: it could not start.
    """
    from farshore_cli import runstory
    from farshore_operator.api.failoverrun import RunPhase
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment

    client, where = Client(from_environment(), "farshore-cli"), namespace or current_namespace()
    found = _plan(client, where, plan)
    if found.spec.active_site.value == to.value:
        told = found.status.next_step or f"they are at the {found.status.active_site or 'source'}"
        raise StopFault(f"activeSite of plan {plan} is {to.value} already: {told}", "Only an edit of it moves machines")
    spec = {"activeSite": to.value, "mode": mode and mode.value, "recoveryPoint": point or None,
            "shutdownSource": shutdown_source and shutdown_source.value}  # fmt: skip
    wanted = {field: value for field, value in spec.items() if value}
    if not yes:
        _ask(client, found, where, wanted)
    name = _start(client, found, where, wanted, reason)
    if not follow:
        print(name)
        return
    ended = runstory.follow(client, where, name, print)
    if ended.status.phase is not RunPhase.SUCCEEDED:
        raise typer.Exit(1)
    print(f"next: farshore status; {_plan(client, where, plan).status.next_step or 'nothing is to be done'}")


def _plan(client: Client, namespace: str, name: str) -> FailoverPlan:
    from farshore_operator.api import FailoverPlan
    from farshore_operator.kube.resources import FAILOVER_PLAN

    body = client.get(FAILOVER_PLAN, namespace, name)
    if body is None:
        raise StopFault(f"there is no FailoverPlan {namespace}/{name}", "`kubectl get failoverplans` lists them")
    return FailoverPlan.of(body)


def _ask(client: Client, plan: FailoverPlan, namespace: str, wanted: Json) -> None:
    """Show what would happen, by the decisions that the operator will make, and ask."""
    from farshore_cli.planning import render
    from farshore_cli.planning.cluster import KubeCluster
    from farshore_cli.planning.manifests import Manifest, Tree
    from farshore_cli.planning.report import report
    from farshore_cli.status import utc_now

    meta = {"name": plan.metadata.name, "namespace": namespace}
    spec = {**plan.spec.dump(), **wanted}
    body = {"apiVersion": plan.api_version, "kind": "FailoverPlan", "metadata": meta, "spec": spec}
    found = report(Tree((Manifest(body, "this command"),)), KubeCluster(client), utc_now)
    print(render.as_text(found))
    if not sys.stdin.isatty():
        raise StopFault("nobody can be asked here", "Look at what is shown above, and give --yes")
    typer.confirm("Start?", abort=True)


def _start(client: Client, plan: FailoverPlan, namespace: str, wanted: Json, reason: str) -> str:
    """Edit the plan, wait for the operator's verdict, and return the name of the run that began."""
    from farshore_operator.decide.origin import REASON, REQUESTED_BY
    from farshore_operator.kube.resources import FAILOVER_PLAN, FAILOVER_RUN

    user, _ = client.whoami()
    notes = {REQUESTED_BY: user} | ({REASON: reason} if reason else {})
    body = {"metadata": {"name": plan.metadata.name, "uid": plan.metadata.uid, "annotations": notes}, "spec": wanted}
    answer = client.apply(FAILOVER_PLAN, namespace, body)
    generation = int(answer["metadata"]["generation"])
    _warn_of_git(answer)
    deadline = time.monotonic() + SEEN_WITHIN
    while time.monotonic() < deadline:
        name = _verdict(_plan(client, namespace, plan.metadata.name), generation)
        if name and client.get(FAILOVER_RUN, namespace, name) is not None:
            return name
        time.sleep(0.3)
    raise WaitFault(
        f"the operator has not begun a run within {SEEN_WITHIN:.0f} s",
        "The edit stands, and is judged when the operator runs: kubectl -n farshore-system get deployments",
    )


def _verdict(plan: FailoverPlan, generation: int) -> str:
    """Return the name of the run that the edit starts, empty until the operator has judged it."""
    from farshore_operator.api.failoverplan import ActiveSite
    from farshore_operator.api.failoverrun import RunKind
    from farshore_operator.decide.planruns import run_name

    edit = plan.status.edit
    if edit is None or edit.generation < generation or edit.active_site != plan.spec.active_site.value:
        return ""
    if not edit.accepted:
        print(f"it could not start: {edit.message}", file=sys.stderr)
        raise typer.Exit(3)
    kind = RunKind.FAILOVER if plan.spec.active_site is ActiveSite.RECOVERY else RunKind.FAILBACK
    return run_name(plan, edit.generation, kind)


def _warn_of_git(body: Json) -> None:
    from farshore_cli.planning.future import GIT_MANAGERS

    owners = {entry.get("manager") for entry in body["metadata"].get("managedFields") or ()}
    if owners & set(GIT_MANAGERS):
        site = body["spec"]["activeSite"]
        print(
            f"note: Git manages this plan. Commit activeSite: {site} too, or the next apply is a revert, which moves "
            "nothing, but says so",
            file=sys.stderr,
        )
