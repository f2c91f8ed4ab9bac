"""Starting and stopping machines. Source: Azure docs "States and billing of Azure Virtual Machines" for the states."""

from __future__ import annotations

from collections.abc import Callable

from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource
from tests.azuresim.compute import machines
from tests.azuresim.compute.access import outstanding
from tests.azuresim.compute.checks import owned
from tests.azuresim.compute.state import compute


def start(call: Call) -> Later:
    machine = _machine(call)
    for _, disk_id in compute(call.sim).attached(machine):
        disk = call.sim.store.need(disk_id)
        if disk.properties["diskState"] == "ActiveSAS":
            # source: Azure docs "Download a Windows VHD": starting while the SAS is active is refused with this
            # sentence
            raise outstanding(disk)

    def run() -> None:
        if compute(call.sim).power.get(machine.id.lower()) != "running":
            machines.allocate(call, machine)
            compute(call.sim).started(machine)

    return _operation(call, machine, "starting", run)


def power_off(call: Call) -> Later:
    """Stopped, and still allocated: its disks stay attached."""
    machine = _machine(call)
    if compute(call.sim).power.get(machine.id.lower()) == "deallocated":
        # source: common VM errors, OperationNotAllowed; [inf] that powerOff is among the operations it is said of
        raise ArmError(
            409, "OperationNotAllowed", f"Operation 'powerOff' is not allowed on VM '{machine.name}' since the VM is "
            f"either "
            "deallocated or marked to be deallocated.",
        )  # fmt: skip
    return _operation(call, machine, "stopping", lambda: _becomes(call, machine, "stopped", "Attached"))


def deallocate(call: Call) -> Later:
    """DiskState "Reserved: the disk is attached to a stopped-deallocated VM"."""
    machine = _machine(call)
    return _operation(call, machine, "deallocating", lambda: _becomes(call, machine, "deallocated", "Reserved"))


def restart(call: Call) -> Later:
    machine = _machine(call)
    if compute(call.sim).power.get(machine.id.lower()) != "running":
        # source: common VM errors, OperationNotAllowed
        raise ArmError(409, "OperationNotAllowed", "The operation requires the VM to be running (or set to run).")
    return _operation(call, machine, "running", lambda: compute(call.sim).started(machine))


def _machine(call: Call) -> Resource:
    machine = call.sim.store.need(call.resource_id)
    owned(call, machine)
    return machine


def _becomes(call: Call, machine: Resource, power: str, disks: str) -> None:
    state = compute(call.sim)
    state.power[machine.id.lower()] = power
    state.mark_disks(machine, disks)


def _operation(call: Call, machine: Resource, meanwhile: str, run: Callable[[], None]) -> Later:
    state = compute(call.sim)
    before = state.power.get(machine.id.lower(), "unknown")
    state.power[machine.id.lower()] = meanwhile if meanwhile != "starting" or before != "running" else before
    machine.properties["provisioningState"] = "Updating"

    def finish() -> None:
        if meanwhile == "starting":
            state.power[machine.id.lower()] = before
        run()
        machine.properties["provisioningState"] = "Succeeded"
        machine.hidden.pop("failure", None)
        machine.hidden.pop("unborn", None)

    def failed(error: ArmError) -> None:
        machine.properties["provisioningState"] = "Failed"
        machine.hidden["failure"] = error
        state.power[machine.id.lower()] = before

    return Later(finish, machine.id, failed=failed)
