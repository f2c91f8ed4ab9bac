"""`farshore vault recover`: bring back what an intruder deleted or overwrote in a vault with immutability."""

from __future__ import annotations

from typing import Annotated

import typer

from farshore_cli.commands.vault import app as vault_app
from farshore_cli.commands.vault import open_place
from farshore_cli.vaultplace import Place, vault_command
from farshore_engine.contract.faults import Fault, StopFault

app = typer.Typer()


@vault_app.command("recover")
@vault_command
def recover(
    place: Place,
    vm: Annotated[str, typer.Argument(help="Machine, as namespace.name. Without: all that can be seen.")] = "",
) -> None:
    """Bring back the locked versions of objects that somebody deleted or overwrote.

    For a vault with immutability, whose storage keeps what is locked: the names are given their content back, so that
    the points can be listed and restored; slots that somebody put behind the head of a chain go. It can be repeated,
    and changes nothing that is as it should be. Change the storage credential first. A machine that was deleted
    altogether is not seen: name it.
    """
    from farshore_cli.status import utc_now
    from farshore_engine.vault.immutability import recover as bring_back
    from farshore_engine.vault.names import MachineNames, checked_machine, checked_prefix

    opened = open_place(place)
    prefix = checked_prefix(opened.prefix)
    machines = [checked_machine(vm)] if vm else list(opened.machines())
    failed = []
    for machine in machines:
        try:
            done = bring_back(opened.store, MachineNames(machine, prefix), opened.keys, utc_now())
        except Fault as fault:
            failed.append(machine)
            print(f"{machine}: not recovered: {fault}")
            continue
        print(f"{machine}: {len(done.objects)} objects were brought back, {len(done.removed)} false slots removed")
        for name in done.stuck:
            print(f"{machine}: {name} is false and locked: until its lock ends nobody can write this machine's chain")
        for name in done.spoiled:
            print(f"{machine}: no locked version of {name} verifies")
    if failed:
        raise StopFault(
            f"{len(failed)} of {len(machines)} machines were not recovered: {', '.join(failed)}",
            "See above",
            reason="NotRecovered",
        )
