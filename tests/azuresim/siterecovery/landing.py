"""Where recovered machines come to life: Site Recovery itself calls compute and network, as any client would.

So names, quotas, planned faults and address conflicts of those simulators hold here too. The disks hold the bytes of
the recovery point."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.azuresim.arm import strict
from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.identity import Grant, Principal
from tests.azuresim.sim import AzureSim
from tests.azuresim.siterecovery.state import Item, Point
from tests.azuresim.siterecovery.world import BLOCK

MIB = 1 << 20
FOOTER = 512
SMALLEST = 20 * MIB
"""What a disk for upload must have at least [SDK of compute: CreationData.uploadSizeBytes]."""
DEFAULT_SIZE = "Standard_D2s_v3"
"""Size when none is set [inf]: the service picks one that fits."""


@dataclass(frozen=True)
class Place:
    """Where a machine lands: `network` and `subnet` by id and name; `address` empty: any."""

    vm_name: str
    network: str
    subnet: str
    address: str = ""


class Landing:
    """Makes and removes virtual machines in the name of the service."""

    def __init__(self, sim: AzureSim) -> None:
        self.sim = sim
        self.me = Principal("site-recovery", "object-of-site-recovery")

    def make(self, item: Item, point: Point, place: Place) -> tuple[str, list[str]]:
        """A running machine with the point's bytes. Gives its id and the ids of all that was made, in the order in
        which to remove them. Raises ArmError 28031 or 28092 [doc: "Troubleshoot errors when failing over"]; then
        nothing stays."""
        made: list[str] = []
        group, tag = item.target.group_id, uuid.uuid4().hex[:8]
        base = f"{group}/providers"
        vm_id = f"{base}/Microsoft.Compute/virtualMachines/{place.vm_name}"
        try:
            nic_id = f"{base}/Microsoft.Network/networkInterfaces/{place.vm_name}-nic-{tag}"
            self._step("28092", "PUT", nic_id, self._nic(item, place))
            made.append(nic_id)
            disks = []
            machine = item.machine
            ordered = sorted(machine.disks if machine else [], key=lambda one: not one.is_os)
            for number, disk in enumerate(one for one in ordered if one.id in point.snapshot.files):
                name = f"{place.vm_name}-{'osdisk' if disk.is_os else f'datadisk-{number}'}-{tag}"
                disk_id = f"{base}/Microsoft.Compute/disks/{name}"
                made.append(disk_id)
                self._disk(
                    item, disk_id, point.snapshot.files[disk.id], item.target.disk_types.get(disk.id, "Standard_LRS")
                )
                disks.append((disk_id, disk.is_os))
            self._step("28031", "PUT", vm_id, self._vm(item, place, nic_id, disks))
        except ArmError:
            self.remove(made)
            raise
        return vm_id, [vm_id, *made]

    def remove(self, ids: Sequence[str]) -> None:
        """Remove what `make` made; what is gone already is skipped."""
        for one in ids:
            if self.sim.store.get(one) is not None:
                self.call("DELETE", one)

    # bodies

    def _nic(self, item: Item, place: Place) -> dict[str, Any]:
        address: dict[str, Any] = {"privateIPAllocationMethod": "Dynamic"}
        if place.address:
            address = {"privateIPAllocationMethod": "Static", "privateIPAddress": place.address}
        subnet = {"id": f"{place.network}/subnets/{place.subnet}"}
        return {
            "location": self._location(item), "tags": dict(item.target.tags),
            "properties": {"ipConfigurations": [{"name": "ipConfig1", "properties": {**address, "subnet": subnet,
            "primary": True}}]},
        }  # fmt: skip

    def _vm(self, item: Item, place: Place, nic_id: str, disks: list[tuple[str, bool]]) -> dict[str, Any]:
        target, machine = item.target, item.machine
        os_type = "Windows" if machine and machine.os_type.lower() == "windows" else "Linux"
        data = [disk_id for disk_id, is_os in disks if not is_os]
        properties: dict[str, Any] = {
            "hardwareProfile": {"vmSize": target.vm_size or DEFAULT_SIZE},
            "storageProfile": {
                "osDisk": {"createOption": "Attach", "osType": os_type, "managedDisk": {"id": next(one for one,
                is_os in disks if is_os)}},
                "dataDisks": [{"lun": lun, "createOption": "Attach", "managedDisk": {"id": one}} for lun,
                one in enumerate(data)],
            },
            "networkProfile": {"networkInterfaces": [{"id": nic_id, "properties": {"primary": True}}]},
        }  # fmt: skip
        if target.availability_set:
            properties["availabilitySet"] = {"id": target.availability_set}
        body: dict[str, Any] = {"location": self._location(item), "tags": dict(target.tags), "properties": properties}
        if target.zone:
            body["zones"] = [target.zone]
        return body

    def _disk(self, item: Item, disk_id: str, source: Path, kind: str) -> None:
        """A managed disk by upload, with the point's bytes: whole MiB, as a VHD's content must be."""
        from tests.azuresim.compute.diskfiles import footer
        from tests.azuresim.compute.state import compute

        length = max((source.stat().st_size + MIB - 1) // MIB * MIB, SMALLEST)
        machine = item.machine
        properties = {
            "creationData": {"createOption": "Upload", "uploadSizeBytes": length + FOOTER},
            "osType": "Windows" if machine and machine.os_type.lower() == "windows" else "Linux",
            "hyperVGeneration": "V2" if machine and machine.firmware == "UEFI" else "V1",
        }  # fmt: skip
        body: dict[str, Any] = {
            "location": self._location(item),
            "sku": {"name": kind},
            "tags": dict(item.target.tags),
            "properties": properties,
        }
        if item.target.zone:
            body["zones"] = [item.target.zone]
        self._step("28031", "PUT", disk_id, body)
        self.call("POST", f"{disk_id}/beginGetAccess", {"access": "Write", "durationInSeconds": 3600})
        with source.open("rb") as given, compute(self.sim).files.path(disk_id).open("r+b") as kept:
            at = 0
            while block := given.read(BLOCK):
                if block.strip(b"\0"):
                    kept.seek(at)
                    kept.write(block)
                at += len(block)
            kept.seek(length)
            kept.write(footer(length))
        self.call("POST", f"{disk_id}/endGetAccess")

    def _location(self, item: Item) -> str:
        return str(item.vault.body.get("location") or self.sim.region)

    # calls

    def _step(self, code: str, method: str, path: str, body: dict[str, Any]) -> None:
        fault = self.sim.faults.strike("arm", method, path)
        try:
            if fault is not None and fault.error is not None:
                raise fault.error
            self.call(method, path, body)
        except ArmError as error:
            raise ArmError(400, code, f"{error.code}: {error.message}") from error

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call to Resource Manager by the service itself, to its end. Raises ArmError."""
        sim = self.sim
        if not sim.roles.allowed(self.me, "Microsoft.Compute/virtualMachines/write", path):
            sim.roles.grants.append(Grant(self.me.client_id, "", ("*",)))
        route, args = sim.arm.find(method, path)
        given = strict.read(route.body, body) if body is not None else None
        done = route.handler(Call(sim, route, method, path, args, {}, {}, sim.arm.supported(route)[-1], self.me, given))
        if not isinstance(done, Later):
            return done.body
        try:
            return done.finish()
        except ArmError as error:
            done.failed(error)
            raise
