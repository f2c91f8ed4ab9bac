"""`farshore status`: at a glance, what is protected, how far behind, what is wrong and what to do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import WaitFault

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from farshore_cli.status import MachineRow, ServerRow

app = typer.Typer()


@app.command("status")
def status(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")] = False,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it, every two seconds.")] = False,
) -> None:
    """Show what is protected, how far behind it is, what is wrong and what to do."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from farshore_operator.kube.connection import current_namespace

    where = None if all_namespaces else namespace or current_namespace()
    if output is Format.JSON:
        machines, servers = _rows(where)
        print(json.dumps({"machines": [asdict(m) for m in machines], "processServers": [asdict(s) for s in servers]},
                         indent=2, default=_plain))  # fmt: skip
        return
    console = Console(highlight=False)
    if not watch:
        console.print(_page(*_rows(where), wide=all_namespaces))
        return
    page = _page(*_rows(where), wide=all_namespaces)
    with Live(page, console=console, screen=True) as live:
        while True:
            time.sleep(2)
            try:
                page = _page(*_rows(where), wide=all_namespaces)
                live.update(page)
            except WaitFault as fault:  # whoever watches a failover must not lose the page to an API that restarts
                live.update(Group(page, Text(f"This is what was seen last: {fault.message}", "bold red")))


def _rows(namespace: str | None) -> tuple[list[MachineRow], list[ServerRow]]:
    from farshore_cli.status import machine_row, server_row, utc_now
    from farshore_operator.api.processserver import ProcessServer
    from farshore_operator.api.protectedvm import ProtectedVM
    from farshore_operator.api.replicationpolicy import ReplicationPolicy
    from farshore_operator.kube import resources
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import from_environment

    client = Client(from_environment(), "farshore-cli")
    policies = [ReplicationPolicy.of(one) for one in client.list_all(resources.REPLICATION_POLICY, namespace)]
    machines = [ProtectedVM.of(one) for one in client.list_all(resources.PROTECTED_VM, namespace)]
    servers = [ProcessServer.of(one) for one in client.list_all(resources.PROCESS_SERVER, namespace)]
    now = utc_now()
    return [machine_row(one, policies, now) for one in machines], [server_row(one, now) for one in servers]


def _page(machines: list[MachineRow], servers: list[ServerRow], *, wide: bool) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from farshore_cli.status import Level, headline, span

    colours = {Level.GOOD: "green", Level.BUSY: "yellow", Level.BAD: "red"}
    first: tuple[str, ...] = ("NAMESPACE",) if wide else ()
    table = Table(*first, "MACHINE", "PHASE", "BEHIND", "POINTS", "CHURN", "FAILOVER", "PROCESS SERVER", box=None)
    for row in machines:
        behind = Text(span(row.behind) + (" late" if row.late else ""), "red" if row.late else "")
        phase, ready = Text(row.phase, colours[row.level]), "ready" if row.ready == "yes" else "not ready"
        where = (row.namespace,) if wide else ()
        table.add_row(*where, row.name, phase, behind, str(row.points), row.churn or "-", ready, row.process_server)
    appliances = Table(*first, "PROCESS SERVER", "SITE", "LAST CONTACT", "MACHINES", "SPOOL", box=None)
    for server in servers:
        contact = Text(f"{span(server.contact)} ago" if server.contact is not None else "never", colours[server.level])
        where, spool = (server.namespace,) if wide else (), f"{server.spool_percent} %"
        appliances.add_row(*where, server.name, server.site, contact, str(server.machines), spool)
    parts: list[RenderableType] = [Text(headline(machines), "bold")]
    parts += [found for found in (table, appliances) if found.row_count]
    # Below the tables, not in them: a sentence that says what to do is longer than a column is wide.
    told = [(one.name, one.todo, one.level) for one in machines] + [(one.name, one.todo, one.level) for one in servers]
    todo = [Text(f"{name}: {sentence}", colours[level]) for name, sentence, level in told if sentence]
    parts += [Group(Text("What to do", "bold"), *todo)] if todo else []
    return Group(*(piece for part in parts for piece in (part, Text(""))))


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)
