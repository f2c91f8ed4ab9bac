"""Jobs: what people follow, each with the long operation that it is; and the events that tell of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.azuresim.arm.call import Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.operations import Operation
from tests.azuresim.sim import AzureSim
from tests.azuresim.siterecovery.catalog import job_error
from tests.azuresim.siterecovery.state import CLASSIC, Event, Fabric, Job, Task, Vault, fabric_id
from tests.azuresim.siterecovery.world import Clock

SIGNED = (
    f"t=2023-08-24T08%3A54%3A09&c={'MIIHHjCCBgagAwIBAgITOgHct7O3aN' * 90}&s={'WzJka0awAjLv' * 28}&h=vRHWh77_0gFMdupkt7t"
)
"""Resource Manager signs the URLs of operations: they are 3 kB long [RECORDED]."""
CANCELLABLE = ("TestFailover", "UnplannedFailover", "PlannedFailover")
"""[spec examples: a PlannedFailover is cancelled; a suspended TestFailover allows Cancel]; the others are [inf]."""


class Jobs:
    """The service's bookkeeping of jobs and events."""

    sim: AzureSim

    @property
    def clock(self) -> Clock:
        raise NotImplementedError

    def job(
        self, vault: Vault, scenario: str, friendly: str, tasks: list[Task], kind: str, target_id: str,
        target_name: str,
    ) -> Job:  # fmt: skip
        made = Job(str(uuid.uuid4()), scenario, friendly, kind, target_id, target_name, self.clock.now(), tasks)
        vault.jobs[made.id] = made
        return made

    def end(self, job: Job, *, state: str = "Succeeded", description: str = "Completed") -> None:
        job.state, job.description, job.allowed = state, description, []
        if state != "Suspended":
            job.ended = self.clock.now()
        for one in job.tasks:
            if one.state in ("NotStarted", "InProgress"):
                one.state = "Succeeded" if state == "Succeeded" else "NotStarted"

    def run(
        self, vault: Vault, job: Job, resource_id: str, finish: Callable[[], Any],
        failed: Callable[[ArmError], None] = lambda error: None,
    ) -> Later:  # fmt: skip
        """A job as a long operation. Its operation has the job's id [response in issue 31927 of
        hashicorp/terraform-provider-azurerm: `name` and x-ms-request-id agree]; job id after `operationresults/`
        [PS]."""

        def done() -> Any:
            result = finish()
            if job.state == "InProgress":
                self.end(job)
            return result

        def fail(error: ArmError) -> None:
            cancelled = job.state == "Cancelling"
            running = next((one for one in job.tasks if one.state != "Succeeded"), None)
            self.end(
                job, state="Cancelled" if cancelled else "Failed", description="Cancelled" if cancelled else "Failed"
            )
            if running is not None:
                running.state = job.state
            job.errors = [job_error(error.code, self.clock.now(), running.id if running else "", error.message)]
            job.allowed = ["Restart"] if job.again is not None and not cancelled else []
            self.event(
                vault, f"{job.scenario} - {job.state}", "JobStatus", "Critical", job.target_name, job.errors, job
            )
            failed(error)

        job.allowed = ["Cancel"] if job.scenario in CANCELLABLE else []
        return Later(
            done, resource_id, failed=fail, operation=job.id,
            status_path=f"{vault.sr_id}/replicationOperationStatus/{{operation}}?{SIGNED}",
            result_path=f"{resource_id}/operationresults/{{operation}}?{SIGNED}",
        )  # fmt: skip

    def cancelling(self, vault: Vault, job: Job) -> Operation | None:
        """From now on the job's operation, if it is under way, can only end as cancelled."""
        found = self.sim.operations.by_path.get(f"{vault.sr_id}/replicationOperationStatus/{job.id}".lower())
        if found is None or found[0].status != "InProgress":
            return None
        found[0].planned, found[0].canceled = ArmError(409, "Canceled", "The job was cancelled."), True
        return found[0]

    def abandon(self, vault: Vault, job: Job) -> None:
        """End the job's operation as cancelled, if it is under way."""
        if operation := self.cancelling(vault, job):
            operation.left = 0
            operation.end()

    def event(
        self, vault: Vault, text: str, kind: str, severity: str, name: str, errors: list[dict[str, Any]] | None = None,
        job: Job | None = None, fabric: Fabric | None = None,
    ) -> None:  # fmt: skip
        found = fabric or next(iter(vault.fabrics.values()), None)
        prefix = "JobStatusMonitoringEvent" if kind == "JobStatus" else "VmMonitoringEvent"
        vault.events.append(Event(
            f"{prefix};{9091989892524070155 - len(vault.events)}_{uuid.uuid4()}", text, kind, severity,
            self.clock.now(),
            fabric_id(vault, found) if found else "", name, errors or [], found.provider if found else CLASSIC, job,
        ))  # fmt: skip
