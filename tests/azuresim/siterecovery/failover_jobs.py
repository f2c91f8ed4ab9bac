"""What the jobs of test failovers and failovers show: their tasks and details."""

from __future__ import annotations

from typing import Any

from tests.azuresim.siterecovery.show_monitoring import text
from tests.azuresim.siterecovery.state import Item, Point, Task, last


def drill_details(item: Item, network: tuple[str, str], point: Point | None) -> dict[str, Any]:
    """TestFailoverJobDetails [spec example ReplicationJobs_Resume]."""
    name = f"{item.target.vm_name or item.friendly}-test"
    one = {
        **of_job(item, point), "testVmName": name, "testVmFriendlyName": name, "networkConnectionStatus": "Connected",
        "networkFriendlyName": last(network[0]), "subnet": network[1],
    }  # fmt: skip
    return {
        "instanceType": "TestFailoverJobDetails", "testFailoverStatus": "Completed", "comments": "",
        "networkName": last(network[0]), "networkFriendlyName": last(network[0]), "networkType": "VmNetworkAsInput",
        "protectedItemDetails": [one],
    }  # fmt: skip


def of_job(item: Item, point: Point | None) -> dict[str, Any]:
    """FailoverReplicationProtectedItemDetails of the SDK."""
    found = {"name": item.name, "friendlyName": item.friendly}
    if point is not None:
        found |= {"recoveryPointId": f"{item.id}/recoveryPoints/{point.id}", "recoveryPointTime": text(point.time)}
    return found


def drill_tasks() -> list[Task]:
    """Names of tasks are [inf]; the steps are the tutorial's."""
    return [
        Task("PrerequisitesCheck", "Prerequisites check for test failover"),
        Task("CreateTestVirtualMachine", "Creating the test virtual machine"),
        Task("StartTestVirtualMachine", "Starting the virtual machine"),
    ]


def failover_tasks(shutdown: bool) -> list[Task]:
    found = [Task("PrerequisitesCheck", "Prerequisites check for failover")]
    if shutdown:
        found.append(Task("ShutdownVirtualMachine", "Shut down the virtual machine"))
    return [
        *found,
        Task("CreateVirtualMachine", "Start failover"),
        Task("StartReplicaVirtualMachine", "Start the virtual machine"),
    ]
