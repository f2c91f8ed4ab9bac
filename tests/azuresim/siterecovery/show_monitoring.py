"""Jobs and events in the words of the SDK's models."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.azuresim.siterecovery.state import Event, Job, Task, Vault

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

TYPE = "Microsoft.RecoveryServices/vaults/"


def render_job(service: SiteRecovery, vault: Vault, job: Job) -> dict[str, Any]:
    """A Job of the SDK [spec example ReplicationJobs_Get]."""
    _progress(service, vault, job)
    details = {"instanceType": "AsrJobDetails", **job.details, "affectedObjectDetails": job.affected}
    properties: dict[str, Any] = {
        "activityId": f"{job.id} ActivityId: {job.id}", "scenarioName": job.scenario, "friendlyName": job.friendly,
        "state": job.state, "stateDescription": job.description, "startTime": text(job.began),
        "allowedActions": job.allowed, "errors": job.errors, "targetObjectId": job.target_id,
        "targetObjectName": job.target_name, "targetInstanceType": job.target_kind, "customDetails": details,
        "tasks": [_task(service, job, one) for one in job.tasks],
    }  # fmt: skip
    if job.ended is not None:
        properties["endTime"] = text(job.ended)
    kind = TYPE + "replicationJobs"
    return {"id": f"{vault.sr_id}/replicationJobs/{job.id}", "name": job.id, "type": kind, "properties": properties}


def _task(service: SiteRecovery, job: Job, one: Task) -> dict[str, Any]:
    found = {
        "taskId": one.id, "name": one.name, "friendlyName": one.friendly, "state": one.state, "taskType": "TaskDetails",
        "stateDescription": "Completed" if one.state == "Succeeded" else one.state, "allowedActions": [], "errors": [],
        "startTime": text(job.began), "customDetails": {"instanceType": "ManualActionTaskDetails"},
    }  # fmt: skip
    if one.state in ("Succeeded", "Failed"):
        found["endTime"] = text(job.ended or service.clock.now())
    return found


def _progress(service: SiteRecovery, vault: Vault, job: Job) -> None:
    """Show the job's tasks as far as its operation has come."""
    found = service.sim.operations.by_path.get(f"{vault.sr_id}/replicationOperationStatus/{job.id}".lower())
    if job.state != "InProgress" or found is None or not job.tasks:
        return
    total = max(service.sim.pace.polls, 1)
    done = min(int((total - found[0].left) / total * len(job.tasks)), len(job.tasks) - 1)
    for number, one in enumerate(job.tasks):
        one.state = "Succeeded" if number < done else "InProgress" if number == done else "NotStarted"


def render_event(vault: Vault, event: Event) -> dict[str, Any]:
    """An Event of the SDK [spec example ReplicationEvents_List]."""
    details: dict[str, Any] = {"instanceType": "JobStatus"}
    if event.job is not None:
        details |= {
            "jobId": event.job.id,
            "jobFriendlyName": event.job.friendly,
            "jobStatus": event.job.state,
            "affectedObjectType": "vm",
        }
    errors = [
        {
            "errorCode": one["serviceErrorDetails"]["code"], "errorMessage": one["serviceErrorDetails"]["message"],
            "possibleCauses": one["serviceErrorDetails"]["possibleCauses"],
            "recommendedAction": one["serviceErrorDetails"]["recommendedAction"],
        } if "serviceErrorDetails" in one else one
        for one in event.errors
    ]  # fmt: skip
    return {
        "id": f"{vault.sr_id}/replicationEvents/{event.name}", "name": event.name, "type": TYPE + "replicationEvents",
        "properties": {
            "eventCode": event.name.partition("_")[2], "description": event.description, "eventType": event.kind,
            "severity": event.severity,
            "affectedObjectFriendlyName": event.object_name, "timeOfOccurrence": text(event.at),
            "fabricId": event.fabric_id,
            "healthErrors": errors, "eventSpecificDetails": details,
            "providerSpecificDetails": {"instanceType": event.provider},
        },
    }  # fmt: skip


def text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
