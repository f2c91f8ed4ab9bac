"""`farshore vault`: look into a vault and take points out of it with the storage credential and the key alone.

The other commands of the group are in the modules `vault_*` beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farshore_cli.formats import Format
from farshore_cli.vaultplace import Place, vault_command
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_engine.vault.keyring import KeyRing
    from farshore_engine.vault.machine import Catalogue, MachineVault
    from farshore_engine.vault.store import ObjectStore

app = typer.Typer(
    name="vault",
    help="Look into a vault, check it and restore from it: no cluster is needed, only the storage credential and the "
    "key-encryption key.",
    no_args_is_help=True,
)
Machine = Annotated[str, typer.Argument(help="Machine, as namespace.name; the name alone if only one machine has it.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show it.")]


@dataclass(frozen=True)
class OpenPlace:
    """A vault whose store is open."""

    store: ObjectStore
    keys: KeyRing
    prefix: str

    def machines(self) -> list[str]:
        """Return the ids of the machines that have anything here; raises StopFault when it is not a vault."""
        from farshore_engine.vault.names import checked_prefix, machines_folder, vault_file
        from farshore_engine.vault.store import ObjectNotFound

        prefix = checked_prefix(self.prefix)
        found = list(self.store.folders(machines_folder(prefix)))
        if not found:
            try:
                self.store.get(vault_file(prefix))
            except ObjectNotFound:
                raise StopFault(
                    f"there is no vault here: {vault_file(prefix)} is missing",
                    "Check account, container or directory, and prefix",
                    reason="NoVault",
                ) from None
        return found

    def named(self, machine: str) -> str:
        """Return the id of the machine that somebody named; raises StopFault when there is none, or several."""
        known = self.machines()
        matches = [machine] if machine in known else [one for one in known if one.endswith(f".{machine}")]
        if len(matches) != 1:
            raise StopFault(
                f"the vault has {'several machines' if matches else 'no machine'} {machine}",
                f"It has: {', '.join(matches or known) or 'none'}",
                reason="NoMachine",
            )
        return matches[0]

    def open(self, machine: str) -> MachineVault:
        """Open a machine by its id."""
        from farshore_engine.vault.machine import MachineVault

        return MachineVault.open(self.store, self.keys, machine, prefix=self.prefix)


def open_place(place: Place) -> OpenPlace:
    """Open the vault that the options describe; raises StopFault for options that do not add up."""
    from farshore_engine.vault.stores import key_ring, open_store

    access = place.access()
    return OpenPlace(open_store(access.storage, deadline=place.patience), key_ring(access), access.prefix)


@app.command("list")
@vault_command
def list_points(
    place: Place,
    vm: Annotated[str, typer.Argument(help="Show the points of this machine. Without: all machines.")] = "",
    output: Output = Format.TABLE,
    newest: Annotated[int, typer.Option("--newest", help="Show this many points; 0: all.")] = 0,
) -> None:
    """List the machines of a vault, or the recovery points of one, newest first."""
    opened = open_place(place)
    if vm:
        _show_points(opened, opened.named(vm), output, newest)
    else:
        _show_machines(opened, output)


@app.command("unpin")
@vault_command
def unpin(
    place: Place,
    vm: Machine,
    point: Annotated[str, typer.Argument(help="Name of the recovery point.")],
    pin: Annotated[str, typer.Argument(help="What holds it, as `farshore vault list` shows it.")],
) -> None:
    """Release a recovery point that a run or export which will never end still holds, so that it can be pruned."""
    opened = open_place(place)
    machine = opened.named(vm)
    vault = opened.open(machine)
    try:
        found = vault.find(point)
        if pin not in found.pins:
            held = ", ".join(found.pins) or "nothing"
            raise StopFault(f"{pin} does not hold {point} of {machine}", f"It is held by: {held}", reason="NoSuchPin")
        vault.unpin(found.slot, pin)
    finally:
        vault.close()
    print(f"{pin} holds {point} of {machine} no more")


def _show_points(opened: OpenPlace, machine: str, output: Format, newest: int) -> None:
    from rich.console import Console

    from farshore_cli.pointtable import point_table
    from farshore_cli.status import utc_now

    vault = opened.open(machine)
    try:
        catalogue = vault.catalogue()
    finally:
        vault.close()
    points = sorted(catalogue.summaries(), key=lambda one: one.slot, reverse=True)
    shown = points[:newest] if newest else points
    if output is Format.JSON:
        damaged = [{"slot": one.slot, "why": one.why} for one in catalogue.damaged]
        found = [point.model_dump(mode="json", by_alias=True) for point in shown]
        print(json.dumps({"machine": machine, "points": found, "damagedSlots": damaged}, indent=2))
        return
    console = Console(highlight=False)
    console.print(point_table(shown, utc_now()) if points else f"{machine} has no recovery point")
    for slot in catalogue.damaged:
        console.print(f"[red]slot {slot.slot} cannot be read:[/] {slot.why}", soft_wrap=True)


def _show_machines(opened: OpenPlace, output: Format) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(_machine_rows(opened))
    if output is Format.JSON:
        print(json.dumps({"machines": rows}, indent=2))
        return
    table = Table("MACHINE", "POINTS", "OLDEST (UTC)", "NEWEST (UTC)", "DISKS", "DAMAGED SLOTS", box=None)
    troubles = []
    for row in rows:
        if "fault" in row:
            troubles.append(Text(f"{row['machine']} cannot be opened: {row['fault']}", "red"))
            continue
        cells = (str(row["points"]), _day(row["oldest"]), _day(row["newest"]), ", ".join(row["disks"]))
        table.add_row(row["machine"], *cells, Text(str(row["damagedSlots"] or ""), "red"))
    console = Console(highlight=False)
    if table.row_count or not troubles:
        console.print(table if rows else "the vault holds no machine yet")
    for trouble in troubles:
        console.print(trouble, soft_wrap=True)


def _day(time: str | None) -> str:
    return (time or "")[:19].replace("T", " ")


def _machine_rows(opened: OpenPlace) -> Iterator[dict[str, Any]]:
    for machine in opened.machines():
        try:
            vault = opened.open(machine)
        except StopFault as fault:
            yield {"machine": machine, "fault": fault.message, "remedy": fault.remedy}
            continue
        try:
            yield _machine_row(machine, vault.catalogue())
        finally:
            vault.close()


def _machine_row(machine: str, catalogue: Catalogue) -> dict[str, Any]:
    from farshore_cli.pointtable import size_text

    last = catalogue.points[-1].manifest if catalogue.points else None
    return {
        "machine": machine,
        "points": len(catalogue.points),
        "oldest": catalogue.points[0].manifest.time.isoformat() if catalogue.points else None,
        "newest": last.time.isoformat() if last else None,
        "disks": [f"{disk.name or disk.id} {size_text(disk.size_bytes)}" for disk in last.disks] if last else [],
        "damagedSlots": len(catalogue.damaged),
    }
