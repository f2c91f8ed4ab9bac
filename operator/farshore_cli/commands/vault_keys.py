"""`farshore vault rotate` and `farshore vault erase`: the keys of a vault, without a cluster."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.commands.vault import Machine, OpenPlace, open_place
from farshore_cli.commands.vault import app as vault_app
from farshore_cli.vaultplace import Place, read_secret, vault_command
from farshore_engine.contract.faults import Fault, StopFault

if TYPE_CHECKING:
    from farshore_engine.vault.keyring import KeyRing

app = typer.Typer()


@vault_app.command("rotate")
@vault_command
def rotate(
    place: Place,
    vm: Annotated[str, typer.Argument(help="Rotate this machine only. Without: every machine of the vault.")] = "",
    new_key_file: Annotated[
        Path | None, typer.Option("--new-key-file", help="File with the new key: raw, hex or base64.")
    ] = None,
    remove_old: Annotated[
        bool, typer.Option("--remove-old", help="Take the old key's wrap away from machines that the new key opens.")
    ] = False,
) -> None:
    """Wrap every machine's data key by a new key beside the old one; no recovery point is written anew.

    The key given as for every `farshore vault` command is the old one. With `--vault-file` and no `--new-key-file`, the
    keys are those of the RecoveryVault: the current one, and `previousKeys` with their `remove`. It can be interrupted
    and repeated. Put the new key into the Secret before the old wrap is removed, or process servers are locked out.
    """
    opened = open_place(place)
    ring = _new_ring(opened, new_key_file, remove_old)
    machines = [opened.named(vm)] if vm else opened.machines()
    failed = [machine for machine in machines if not _rotate_one(opened, machine, ring)]
    if failed:
        raise StopFault(
            f"{len(failed)} of {len(machines)} machines were not rotated: {', '.join(failed)}",
            "Keep the old key, remove what stands in the way, and run it again",
            reason="NotRotated",
        )


@vault_app.command("erase")
@vault_command
def erase(
    place: Place,
    vm: Machine,
    confirm: Annotated[
        str, typer.Option("--confirm", help="The machine's full id, to show that you mean it; nothing is asked.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record in the vault.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who erases it. Default: user@host.")] = "",
) -> None:
    """Destroy the data key of a machine: none of its recovery points can ever be opened again, by anybody.

    Refused while a run, drill or export holds a point, and while points are locked against deletion.
    """
    from farshore_cli.status import utc_now
    from farshore_engine.vault.erasure import erase_machine

    opened = open_place(place)
    machine = opened.named(vm)
    if confirm != machine:
        raise StopFault(
            f"{machine} is not erased: it is not confirmed",
            f"Add --confirm {machine}; its recovery points are lost for good",
            reason="NotConfirmed",
        )
    vault = opened.open(machine)
    try:
        erased = erase_machine(
            vault, by=by or f"{getpass.getuser()}@{socket.gethostname()}", reason=reason, writer="erase", clock=utc_now
        )
    finally:
        vault.close()
    print(
        f"{machine} was erased on {erased.time:%Y-%m-%d at %H:%M:%S UTC} by {erased.by}: no point of it opens any more"
    )
    print(
        "Where the storage account keeps old versions or deleted blobs, the former key.json is among them until they "
        "expire: delete those of it, or destroy the key-encryption key, to be rid of it at once."
    )


def _new_ring(opened: OpenPlace, new_key_file: Path | None, remove_old: bool) -> KeyRing:
    from dataclasses import replace

    from farshore_engine.vault.keyring import KeyRing, LocalKey, Previous

    given = opened.keys
    if new_key_file is not None:
        new = LocalKey.parse(read_secret(new_key_file, "the new key-encryption key"))
        return KeyRing(new, tuple(Previous(key, remove_old) for key in given.wrappers))
    if not given.previous:
        raise StopFault(
            "there is no new key",
            "Give --new-key-file, or --vault-file with a RecoveryVault that has encryption.previousKeys",
            reason="BadOptions",
        )
    return replace(given, previous=tuple(replace(one, remove=one.remove or remove_old) for one in given.previous))


def _rotate_one(opened: OpenPlace, machine: str, ring: KeyRing) -> bool:
    from farshore_engine.vault.keydocument import ErasedKey
    from farshore_engine.vault.machine import MachineVault

    try:
        vault = MachineVault.open(opened.store, ring, machine, prefix=opened.prefix)
    except ErasedKey as fault:
        print(f"{machine}: {fault.message}")
        return True
    except Fault as fault:
        print(f"{machine}: not rotated: {fault.message}")
        return False
    try:
        report = vault.rotate(ring)
    finally:
        vault.close()
    others = f"; {', '.join(report.previous)} opens it too" if report.previous else ""
    print(f"{machine}: {f'key {report.current} opens it{others}' if report.wrapped else report.message}")
    return report.wrapped
