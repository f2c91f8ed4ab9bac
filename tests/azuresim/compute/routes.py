"""The calls of Microsoft.Compute that are simulated, with the SDK's models on both sides."""

from __future__ import annotations

from azure.mgmt.compute import models
from tests.azuresim.arm.registry import GROUP, SUBSCRIPTION, Route
from tests.azuresim.compute import access, catalogue, disks, machines, power, sets, views
from tests.azuresim.compute.diskfiles import DiskFiles
from tests.azuresim.compute.state import Compute
from tests.azuresim.sim import AzureSim

DISK_VERSIONS = ("2017-03-30", "2019-07-01", "2020-12-01", "2023-10-02", "2024-03-02", "2025-01-02", "2026-03-02")
VERSIONS = ("2017-12-01", "2019-07-01", "2020-06-01", "2024-07-01", "2024-11-01", "2025-04-01", "2026-04-01")
SKU_VERSIONS = ("2017-09-01", "2019-04-01", "2021-07-01")
"""Versions: those of the 2020-09-01-hybrid profile, those of the specification's examples that are replayed, and the
ones that the installed SDKs send."""

IN_GROUP = GROUP + "/providers/Microsoft.Compute"
IN_SUBSCRIPTION = SUBSCRIPTION + "/providers/Microsoft.Compute"


def plug(sim: AzureSim) -> None:
    assert sim.directory is not None
    sim.parts["compute"] = Compute(sim, DiskFiles(sim.directory / "disks"))
    sim.providers.setdefault("Microsoft.Compute", "Registered")
    sim.gone["microsoft.compute/disks"] = lambda disk: sim.parts["compute"].files.remove(disk.id)
    sim.arm.add([*_disks(), *_machines(), *_others()])


def _disks() -> list[Route]:
    one, v = IN_GROUP + "/disks/{disk}", DISK_VERSIONS
    return [
        Route("PUT", one, disks.put, v, models.Disk, models.Disk),
        Route("GET", one, disks.get, v, reply=models.Disk),
        Route("PATCH", one, disks.patch, v, models.DiskUpdate, models.Disk),
        Route("DELETE", one, disks.delete, v),
        Route("GET", IN_GROUP + "/disks", disks.list_in_group, v, items=models.Disk),
        Route("GET", IN_SUBSCRIPTION + "/disks", disks.list_all, v, items=models.Disk),
        Route("POST", one + "/beginGetAccess", access.grant, v, models.GrantAccessData, models.AccessUri),
        Route("POST", one + "/endGetAccess", access.revoke, v),
    ]


def _machines() -> list[Route]:
    one, v = IN_GROUP + "/virtualMachines/{machine}", VERSIONS
    return [
        Route("PUT", one, machines.put, v, models.VirtualMachine, models.VirtualMachine),
        Route("PATCH", one, machines.patch, v, models.VirtualMachineUpdate, models.VirtualMachine),
        Route("GET", one, views.get, v, reply=models.VirtualMachine),
        Route("DELETE", one, machines.delete, v),
        Route("GET", IN_GROUP + "/virtualMachines", views.list_in_group, v, items=models.VirtualMachine),
        Route("GET", IN_SUBSCRIPTION + "/virtualMachines", views.list_all, v, items=models.VirtualMachine),
        Route("GET", one + "/instanceView", views.instance_view, v, reply=models.VirtualMachineInstanceView),
        Route("GET", one + "/vmSizes", catalogue.sizes_of_machine, v, items=models.VirtualMachineSize),
        Route(
            "POST", one + "/attachDetachDataDisks", machines.attach_detach, v, models.AttachDetachDataDisksRequest,
            models.StorageProfile,
        ),
        Route("POST", one + "/start", power.start, v),
        Route("POST", one + "/powerOff", power.power_off, v),
        Route("POST", one + "/deallocate", power.deallocate, v),
        Route("POST", one + "/restart", power.restart, v),
    ]  # fmt: skip


def _others() -> list[Route]:
    one, v = IN_GROUP + "/availabilitySets/{set}", VERSIONS
    here = IN_SUBSCRIPTION + "/locations/{location}"
    return [
        Route("PUT", one, sets.put, v, models.AvailabilitySet, models.AvailabilitySet),
        Route("GET", one, sets.get, v, reply=models.AvailabilitySet),
        Route("DELETE", one, sets.delete, v),
        Route("GET", IN_GROUP + "/availabilitySets", sets.list_in_group, v, items=models.AvailabilitySet),
        Route("GET", IN_SUBSCRIPTION + "/skus", catalogue.skus, SKU_VERSIONS, items=models.ResourceSku),
        Route("GET", here + "/usages", catalogue.usages, v, items=models.Usage),
        Route("GET", here + "/vmSizes", catalogue.sizes, v, items=models.VirtualMachineSize),
    ]
