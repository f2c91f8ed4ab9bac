"""Jobs, events, the vault's health, alert settings: how people and the product follow what happens."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery import rules
from tests.azuresim.siterecovery.catalog import job_error
from tests.azuresim.siterecovery.refusals import bad, not_found
from tests.azuresim.siterecovery.show_monitoring import TYPE, render_event, render_job
from tests.azuresim.siterecovery.state import Job, Task, Vault
from tests.azuresim.siterecovery.vaults import VAULT

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

VERSIONS = (
    "2022-10-01", "2023-02-01", "2023-04-01", "2023-06-01", "2023-08-01", "2024-01-01", "2024-02-01", "2024-04-01",
    "2024-10-01", "2025-01-01", "2025-02-01", "2025-08-01",
)  # fmt: skip
"""Versions of Microsoft.RecoveryServices/vaults/replication* [list of other versions in the Pulumi registry's page of
ReplicationRecoveryPlan; 2025-08-01 is the SDK's]."""
JOBS = VAULT + "/replicationJobs"


class Monitoring:
    """The calls that watch."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        alert = VAULT + "/replicationAlertSettings/{alert}"
        return [
            Route("GET", JOBS, self.list_jobs, VERSIONS, items=models.Job),
            Route("GET", JOBS + "/{job}", self.get_job, VERSIONS, reply=models.Job),
            Route("POST", JOBS + "/{job}/cancel", self.cancel, VERSIONS, reply=models.Job),
            Route("POST", JOBS + "/{job}/restart", self.restart, VERSIONS, reply=models.Job),
            Route("POST", JOBS + "/{job}/resume", self.resume, VERSIONS, models.ResumeJobParams, models.Job),
            Route("GET", VAULT + "/replicationEvents", self.events, VERSIONS, items=models.Event),
            Route("GET", VAULT + "/replicationEvents/{event}", self.get_event, VERSIONS, reply=models.Event),
            Route("GET", VAULT + "/replicationVaultHealth", self.health, VERSIONS, reply=models.VaultHealthDetails),
            Route(
                "POST",
                VAULT + "/replicationVaultHealth/default/refresh",
                self.refresh,
                VERSIONS,
                reply=models.VaultHealthDetails,
            ),
            Route("GET", VAULT + "/replicationAlertSettings", self.alerts, VERSIONS, items=models.Alert),
            Route("GET", alert, self.get_alert, VERSIONS, reply=models.Alert),
            Route("PUT", alert, self.put_alert, VERSIONS, models.ConfigureAlertRequest, models.Alert),
        ]

    # jobs

    def list_jobs(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        found = [one for one in reversed(vault.jobs.values()) if _wanted(one, call.query.get("$filter", ""))]
        return Reply({"value": [render_job(self.service, vault, one) for one in found]})

    def get_job(self, call: Call) -> Reply:
        vault, job = self._job(call)
        pending = self.service.sim.operations.by_path.get(f"{vault.sr_id}/replicationOperationStatus/{job.id}".lower())
        if pending is not None:
            self.service.sim.operations.look(pending[0])  # whoever follows the job lets time pass too
        return Reply(render_job(self.service, vault, job))

    def _job(self, call: Call) -> tuple[Vault, Job]:
        vault = self.service.find_vault(call)
        job = vault.jobs.get(call.args["job"])
        if job is None:
            raise not_found("job", call.args["job"])
        return vault, job

    def _check(self, job: Job, action: str) -> None:
        """Not among its allowedActions: refused [inf code]."""
        if action not in job.allowed:
            raise ArmError(
                409,
                "JobActionNotAllowed",
                f"The job '{job.friendly}' in state '{job.state}' does not allow '{action}'.",
            )

    def cancel(self, call: Call) -> Later:
        vault, job = self._job(call)
        self._check(job, "Cancel")
        if job.state == "Suspended":
            self.service.end(job, state="Cancelled", description="Cancelled")
        else:
            job.state = job.description = "Cancelling"  # [spec example ReplicationJobs_Cancel]
            job.allowed = []
            self.service.cancelling(vault, job)

        def finish() -> dict[str, Any]:
            self.service.abandon(vault, job)
            return render_job(self.service, vault, job)

        return self._later(vault, job, finish)

    def restart(self, call: Call) -> Later:
        """A failed job runs again under its own id; the answer is a job of its own [spec example
        ReplicationJobs_Restart]."""
        vault, job = self._job(call)
        self._check(job, "Restart")
        again = job.again
        job.state = job.description = "InProgress"
        job.ended, job.errors, job.allowed = None, [], []
        tasks = [Task("RemediateTask", "Restarting job")]
        mine = self.service.job(
            vault, "RestartJob", "Restart job", tasks, job.target_kind, job.target_id, job.target_name
        )

        def finish() -> dict[str, Any]:
            again()
            if job.state == "InProgress":
                self.service.end(job)
            self.service.end(mine)
            return render_job(self.service, vault, mine)

        def failed(error: ArmError) -> None:
            self.service.end(job, state="Failed", description="Failed")
            job.errors, job.allowed = [job_error(error.code, self.service.clock.now(), "", error.message)], ["Restart"]

        return self.service.run(vault, mine, f"{vault.sr_id}/replicationJobs/{job.id}", finish, failed)

    def resume(self, call: Call) -> Later:
        """A suspended test failover is completed: its clean-up runs [inf, from the example's
        WaitingForStopTestFailover]."""
        vault, job = self._job(call)
        self._check(job, "Resume")
        comments = (call.body.get("properties") or {}).get("comments") or ""

        def finish() -> dict[str, Any]:
            if job.resume is not None:
                job.resume(comments)
                self.service.end(job)
            if "comments" in job.details:
                job.details["comments"] = comments
            return render_job(self.service, vault, job)

        return self._later(vault, job, finish)

    def _later(self, vault: Vault, job: Job, finish: Any) -> Later:
        return Later(
            finish, f"{vault.sr_id}/replicationJobs/{job.id}",
            result_path=f"{vault.sr_id}/replicationJobs/{job.id}/operationresults/{{operation}}",
            status_path=f"{vault.sr_id}/replicationOperationStatus/{{operation}}",
        )  # fmt: skip

    # events and health

    def events(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        wanted = _filter(call.query.get("$filter", ""))
        found = [
            one
            for one in reversed(vault.events)
            if wanted.get("severity", one.severity.lower()) == one.severity.lower()
        ]
        return Reply({"value": [render_event(vault, one) for one in found]})

    def get_event(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        for one in vault.events:
            if one.name == call.args["event"]:
                return Reply(render_event(vault, one))
        raise not_found("event", call.args["event"])

    def health(self, call: Call) -> Reply:
        return Reply(self._health(self.service.find_vault(call)))

    def refresh(self, call: Call) -> Later:
        vault = self.service.find_vault(call)
        job = self.service.job(
            vault, "RefreshVaultHealth", "Refresh the health of the vault", [], "Vault", vault.name, vault.name
        )
        return self.service.run(
            vault, job, f"{vault.sr_id}/replicationVaultHealth/default", lambda: self._health(vault)
        )

    def _health(self, vault: Vault) -> dict[str, Any]:
        now = self.service.clock.now()
        issues: dict[str, dict[str, Any]] = {}
        counts = {"Normal": 0, "Warning": 0, "Critical": 0}
        for item in vault.items():
            counts[rules.replication_health(item, now)] += 1
            for error in rules.health_errors(item, now):
                issue = issues.setdefault(error["errorCode"], _issue(error, "replicationProtectedItems"))
                issue["affectedResourceCorrelationIds"].append(item.name)
        fabrics: dict[str, dict[str, Any]] = {}
        for fabric in vault.fabrics.values():
            for code in [*fabric.errors, *(one for server in fabric.servers for one in server.errors)]:
                error = rules.health_error(code, now, entity=fabric.guid)
                fabrics.setdefault(code, _issue(error, "replicationFabrics"))["affectedResourceCorrelationIds"].append(
                    fabric.guid
                )
        return {
            "id": f"{vault.sr_id}/replicationVaultHealth/Default", "name": "Default",
            "type": TYPE + "replicationVaultHealth",
            "properties": {
                "vaultErrors": [],
                "protectedItemsHealth": {"resourceCount": len(vault.items()), "issues": list(issues.values()),
                "categorizedResourceCounts": counts},
                "fabricsHealth": {"resourceCount": len(vault.fabrics), "issues": list(fabrics.values())},
                "containersHealth": {"resourceCount": len(vault.containers()), "issues": []},
            },
        }  # fmt: skip

    # alerts

    def alerts(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply({"value": [_alert(vault, name) for name in vault.alerts]})

    def get_alert(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        if call.args["alert"] not in vault.alerts:
            raise not_found("alert setting", call.args["alert"])
        return Reply(_alert(vault, call.args["alert"]))

    def put_alert(self, call: Call) -> Reply:
        vault, given = self.service.find_vault(call), call.body.get("properties") or {}
        if given.get("sendToOwners") not in (None, "true", "false", "Send", "DoNotSend"):
            # The string "true"/"false" [spec example ReplicationAlertSettings_Create]; "Send" is [PS].
            raise bad(f"'{given['sendToOwners']}' is no value of sendToOwners.", "properties.sendToOwners")
        vault.alerts[call.args["alert"]] = {"sendToOwners": "", "customEmailAddresses": [], "locale": "", **given}
        return Reply(_alert(vault, call.args["alert"]))


def _alert(vault: Vault, name: str) -> dict[str, Any]:
    kind = "replicationAlertSettings"
    return {"id": f"{vault.sr_id}/{kind}/{name}", "name": name, "type": TYPE + kind, "properties": vault.alerts[name]}


def _issue(error: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "summaryCode": error["errorCode"], "summaryMessage": error["summaryMessage"],
        "category": error["errorCategory"],
        "severity": error["errorLevel"], "affectedResourceType": kind, "affectedResourceSubtype": "",
        "affectedResourceCorrelationIds": [],
    }  # fmt: skip


def _filter(text: str) -> dict[str, str]:
    """The OData filter `A eq 'b' and C eq 'd'`, names and values in lower case."""
    return {name.lower(): value.lower() for name, value in re.findall(r"(\w+)\s+eq\s+'([^']*)'", text)}


def _wanted(job: Job, text: str) -> bool:
    """[SDK: OData; PS builds: StartTime ge/EndTime le, JobStatus, JobName, AffectedObjectType eq]."""
    given = _filter(text)
    start = re.search(r"StartTime\s+(?:eq|ge)\s+'([^']*)'", text, re.IGNORECASE)
    if start and job.began < datetime.fromisoformat(start[1]):
        return False
    return (
        given.get("jobstatus", job.state.lower()) == job.state.lower()
        and given.get("jobname", job.scenario.lower()) == job.scenario.lower()
        and given.get("affectedobjecttype", job.target_kind.lower()) == job.target_kind.lower()
    )
