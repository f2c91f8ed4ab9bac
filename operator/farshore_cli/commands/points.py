"""`farshore points VM`: every recovery point of a machine, read from the vault itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_engine.contract.assignment import Retention
    from farshore_engine.contract.points import RecoveryPoint
    from farshore_engine.vault.machine import DamagedSlot
    from farshore_operator.api import Resource
    from farshore_operator.kube.client import Client

    ResourceT = TypeVar("ResourceT", bound=Resource)

app = typer.Typer()


@app.command("points")
def points(
    vm: Annotated[str, typer.Argument(help="Name of the ProtectedVM.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
    newest: Annotated[int, typer.Option("--newest", help="Show this many; 0: all.")] = 0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why the machine's ReplicationPolicy keeps each point.")
    ] = False,
) -> None:
    """List the recovery points of a machine, newest first; its vault's Secrets must be readable to you."""
    from rich.console import Console

    from farshore_cli.pointtable import point_table
    from farshore_cli.status import utc_now

    found, damaged, rules = read_points(vm, namespace, explain=explain)
    reasons = explained(found, rules, utc_now()) if rules is not None else None
    shown = found[:newest] if newest else found
    if output is Format.JSON:
        more = {slot: {"keptBecause": why} for slot, why in (reasons or {}).items()}
        rows = [point.model_dump(mode="json", by_alias=True) | more.get(point.slot, {}) for point in shown]
        print(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    if not found:
        console.print(f"{vm} has no recovery point yet: `farshore status` says how far the first copy is.")
    else:
        console.print(point_table(shown, utc_now(), reasons))
    for slot in damaged:
        console.print(f"[red]slot {slot.slot} cannot be read:[/] {slot.why}")


def explained(found: Sequence[RecoveryPoint], rules: Retention, now: datetime) -> dict[int, list[str]]:
    """Return why each point is kept, by its slot; an empty list for one that the next prune takes."""
    from farshore_engine.vault.retention import RetentionRules, retain

    return retain(found, RetentionRules.of(rules), now)


def read_points(
    vm: str, namespace: str, *, explain: bool
) -> tuple[list[RecoveryPoint], Sequence[DamagedSlot], Retention | None]:
    """Read the points of a machine from its vault, newest first, and, to `explain` them, its policy's retention."""
    from farshore_cli.status import utc_now
    from farshore_engine.vault.stores import open_machine
    from farshore_operator.api import ProtectedVM
    from farshore_operator.decide.naming import machine_id
    from farshore_operator.kube.appliance.resolve import Resolver
    from farshore_operator.kube.appliance.secretvalues import SecretValues
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment

    client, where = Client(from_environment(), "farshore-cli"), namespace or current_namespace()
    objects = _Objects(client, where)
    machine = objects.find(ProtectedVM, vm)
    if machine is None:
        raise StopFault(f"there is no ProtectedVM {vm} in namespace {where}", "`farshore status` lists them")
    resolver = Resolver("", objects, SecretValues(client, where), utc_now)
    rules = resolver.policy_of(machine).retention if explain else None
    catalogue = open_machine(resolver.vault_of(machine), machine_id(where, vm)).catalogue()
    return sorted(catalogue.summaries(), key=lambda one: one.slot, reverse=True), catalogue.damaged, rules


class _Objects:
    """The objects of a namespace, read from the API at each question."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def find(self, model: type[ResourceT], name: str) -> ResourceT | None:
        """Return an object, None if it does not exist."""
        from farshore_operator.kube.resources import BY_KIND

        body = self._client.get(BY_KIND[model.definition.kind], self._namespace, name)
        return None if body is None else model.of(body)

    def all(self, model: type[ResourceT]) -> list[ResourceT]:
        """Return all objects of a kind."""
        from farshore_operator.kube.resources import BY_KIND

        return [model.of(one) for one in self._client.list_all(BY_KIND[model.definition.kind], self._namespace)]
