"""Recovery plans: machines in groups that fail over together. Actions of a plan are kept and shown, not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery.failover import Failover
from tests.azuresim.siterecovery.failover_jobs import drill_tasks, failover_tasks
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.networks import drill_network
from tests.azuresim.siterecovery.refusals import bad, not_allowed, not_found
from tests.azuresim.siterecovery.rules import allowed
from tests.azuresim.siterecovery.show_plans import plan_id, show
from tests.azuresim.siterecovery.state import AZURE, HYPERV, Drill, Item, Job, Phase, Plan, Point, Vault, fabric_id
from tests.azuresim.siterecovery.vaults import VAULT

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

PLAN = VAULT + "/replicationRecoveryPlans/{plan}"
MAX_GROUPS = 7
"""Boot groups of a plan [doc: "Create recovery plans", 2016]."""
MAX_MACHINES = 100
"""Machines of a plan [doc: "Common questions", limits]."""


class Plans:
    """The calls on recovery plans."""

    def __init__(self, service: SiteRecovery, failover: Failover) -> None:
        self.service, self.failover = service, failover

    def routes(self) -> list[Route]:
        made = models.RecoveryPlan
        cleanup = models.RecoveryPlanTestFailoverCleanupInput
        return [
            Route("GET", VAULT + "/replicationRecoveryPlans", self.all, VERSIONS, items=made),
            Route("GET", PLAN, self.get, VERSIONS, reply=made),
            Route("PUT", PLAN, self.create, VERSIONS, models.CreateRecoveryPlanInput, made),
            Route("PATCH", PLAN, self.update, VERSIONS, models.UpdateRecoveryPlanInput, made),
            Route("DELETE", PLAN, self.delete, VERSIONS),
            Route("POST", PLAN + "/testFailover", self.test, VERSIONS, models.RecoveryPlanTestFailoverInput, made),
            Route("POST", PLAN + "/testFailoverCleanup", self.cleanup, VERSIONS, cleanup, made),
            Route("POST", PLAN + "/unplannedFailover", self.unplanned, VERSIONS,
            models.RecoveryPlanUnplannedFailoverInput, made),
            Route("POST", PLAN + "/plannedFailover", self.planned, VERSIONS, models.RecoveryPlanPlannedFailoverInput,
            made),
            Route("POST", PLAN + "/failoverCommit", self.commit, VERSIONS, reply=made),
            Route("POST", PLAN + "/failoverCancel", self.cancel, VERSIONS, reply=made),
            Route("POST", PLAN + "/reProtect", self.reprotect, VERSIONS, reply=made),
        ]  # fmt: skip

    # the plan itself

    def all(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply({"value": [self._show(vault, one) for one in vault.plans.values()]})

    def get(self, call: Call) -> Reply:
        return Reply(self._show(*self._plan(call)))

    def _plan(self, call: Call) -> tuple[Vault, Plan]:
        vault = self.service.find_vault(call)
        found = vault.plans.get(call.args["plan"].lower())
        if found is None:
            raise not_found("recovery plan", call.args["plan"])
        return vault, found

    def create(self, call: Call) -> Later:
        vault, given = self.service.find_vault(call), call.body["properties"]
        name = call.args["plan"]
        if name.lower() in vault.plans:
            raise ArmError(409, "RecoveryPlanAlreadyExists", f"A recovery plan named '{name}' exists.")  # [inf]
        if given["recoveryFabricId"] != AZURE:
            raise bad(f"The recovery fabric must be '{AZURE}'.", "properties.recoveryFabricId")
        primary = [
            one for one in vault.fabrics.values() if fabric_id(vault, one).lower() == given["primaryFabricId"].lower()
        ]
        if not primary:
            raise not_found("fabric", given["primaryFabricId"])
        plan = Plan(name, given["primaryFabricId"], given.get("failoverDeploymentModel") or "ResourceManager", [])
        groups = self._groups(vault, given["groups"])

        def effect() -> None:
            plan.groups = groups
            vault.plans[name.lower()] = plan

        return self._later(vault, plan, "CreateRecoveryPlan", "Create a recovery plan", effect)

    def _groups(self, vault: Vault, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The groups with the server's Shutdown and Failover in front [spec example
        ReplicationRecoveryPlans_Create]."""
        found = [{**_EMPTY, **{key: value for key, value in one.items() if value is not None}} for one in given]
        boot = [one for one in found if one["groupType"] == "Boot"]
        machines = [one["id"] for group in boot for one in group["replicationProtectedItems"]]
        if not machines:
            raise bad("A recovery plan needs a machine.", "properties.groups")  # [inf]
        if len(boot) > MAX_GROUPS or len(machines) > MAX_MACHINES:
            raise bad(
                f"A recovery plan has at most {MAX_GROUPS} groups and {MAX_MACHINES} machines.", "properties.groups"
            )
        if len({one.lower() for one in machines}) < len(machines):
            raise bad("A machine is in the plan twice.", "properties.groups")  # [inf]
        for one in machines:
            item = self.service.item_of(one)
            if item is None or item.vault is not vault:
                raise not_found("replication protected item", one)
        own = [one for one in found if one["groupType"] != "Boot"]
        for kind in ("Failover", "Shutdown"):
            if not any(one["groupType"] == kind for one in own):
                own.insert(0, {**_EMPTY, "groupType": kind})
        return [*own, *boot]

    def update(self, call: Call) -> Later:
        vault, plan = self._plan(call)
        groups = self._groups(vault, (call.body.get("properties") or {}).get("groups") or [])

        def effect() -> None:
            plan.groups = groups

        return self._later(vault, plan, "UpdateRecoveryPlan", "Update a recovery plan", effect)

    def delete(self, call: Call) -> Later:
        vault, plan = self._plan(call)
        job = self._job(vault, plan, "DeleteRecoveryPlan", "Delete a recovery plan")
        return self.service.run(
            vault, job, plan_id(vault, plan), lambda: vault.plans.pop(plan.name.lower(), None) and None
        )

    def _show(self, vault: Vault, plan: Plan) -> dict[str, Any]:
        return show(vault, plan, self.items(plan))

    # failover

    def items(self, plan: Plan) -> list[Item]:
        ids = [one["id"] for group in plan.groups for one in group["replicationProtectedItems"]]
        return [item for item in map(self.service.item_of, ids) if item is not None]

    def _check(self, plan: Plan, operation: str) -> list[Item]:
        items = self.items(plan)
        for one in items:
            if operation not in allowed(one):
                raise not_allowed(one, operation, allowed(one))
        return items

    def test(self, call: Call) -> Later:
        (vault, plan), given = self._plan(call), call.body["properties"]
        items = self._check(plan, "TestFailover")
        networks = [drill_network(self.service.sim, one, given) for one in items]
        points = [self._point(one, given.get("providerSpecificDetails")) for one in items]
        job = self._job(vault, plan, "TestFailover", "Test failover")
        job.tasks = drill_tasks()

        def effect() -> None:
            for item, network, point in zip(items, networks, points, strict=True):
                self.failover.start_test(item, job, network, point())
            plan.last_test, plan.job_status = self.service.clock.now(), "Suspended"  # [spec example _TestFailover]

        return self._busy(vault, plan, job, items, effect)

    def cleanup(self, call: Call) -> Later:
        (vault, plan), given = self._plan(call), call.body["properties"]
        items = self._check(plan, "TestFailoverCleanup")
        job = self._job(vault, plan, "TestFailoverCleanup", "Test failover cleanup")

        def effect() -> None:
            for one in items:
                self.failover.finish_test(one, given.get("comments") or "")
            for other in vault.jobs.values():
                if other.state == "Suspended" and other.target_id == plan.name:
                    self.service.end(other)
            plan.job_status = "Succeeded"

        return self._busy(vault, plan, job, items, effect)

    def unplanned(self, call: Call) -> Later:
        (vault, plan), given = self._plan(call), call.body["properties"]
        if given["failoverDirection"] != "PrimaryToRecovery":
            raise bad("The failover goes from primary to recovery.", "properties.failoverDirection")
        items = self._check(plan, "UnplannedFailover")
        points = [self._point(one, given.get("providerSpecificDetails")) for one in items]
        shutdown = given["sourceSiteOperations"] == "Required"
        job = self._job(vault, plan, "UnplannedFailover", "Failover")
        job.tasks = failover_tasks(shutdown)

        def effect() -> None:
            for item, point in zip(items, points, strict=True):
                item.phase = Phase.FAILING_OVER
                self.failover.start_failover(item, job, shutdown, point())
            plan.last_unplanned, plan.job_status = self.service.clock.now(), "Succeeded"

        return self._busy(vault, plan, job, items, effect)

    def _point(self, item: Item, details: list[dict[str, Any]] | None) -> Callable[[], Point | None]:
        """The point by the plan's words, chosen when it runs [SDK: InMageV2RpRecoveryPointType,
        RecoveryPlanPointType]."""
        mine = next((one for one in details or [] if one.get("instanceType") == item.provider), None)
        if mine is None and item.provider != HYPERV:
            raise bad(f"The settings for provider {item.provider} are missing.", "properties.providerSpecificDetails")
        kind = (mine or {}).get("recoveryPointType", "Latest")

        def choose() -> Point | None:
            wanted = {
                "LatestApplicationConsistent": "ApplicationConsistent",
                "LatestCrashConsistent": "CrashConsistent",
            }.get(kind)
            if kind == "Latest":
                return None
            found = [one for one in item.points if wanted in (None, one.kind)]
            if not found:
                raise ArmError(400, "78144", f"'{item.friendly}' has no recovery point of that kind.")
            return max(found, key=lambda one: one.time)

        return choose

    def planned(self, call: Call) -> Later:
        vault, plan = self._plan(call)
        items = self._check(plan, "PlannedFailover")
        job = self._job(vault, plan, "PlannedFailover", "Planned failover")

        def effect() -> None:
            for one in items:
                one.phase = Phase.PLANNED_COMMIT_PENDING
            plan.last_planned = self.service.clock.now()

        return self._busy(vault, plan, job, items, effect)

    def commit(self, call: Call) -> Later:
        vault, plan = self._plan(call)
        items = self._check(plan, "Commit")
        job = self._job(vault, plan, "CommitFailover", "Commit failover")

        def effect() -> None:
            for one in items:
                self.failover.finish_commit(one)

        return self._busy(vault, plan, job, items, effect)

    def cancel(self, call: Call) -> Later:
        vault, plan = self._plan(call)
        items = self.items(plan)
        if any(one.provider != HYPERV for one in items):
            self._check(plan, "CancelFailover")

        def effect() -> None:
            for one in items:
                one.phase = Phase.PROTECTED

        return self._busy(vault, plan, self._job(vault, plan, "CancelFailover", "Cancel failover"), items, effect)

    def reprotect(self, call: Call) -> Later:
        """Refused for InMage providers [PS rejects it; code is [inf]]."""
        vault, plan = self._plan(call)
        items = self.items(plan)
        if any(one.provider != HYPERV for one in items):
            raise ArmError(400, "ReprotectNotSupported", "A plan with physical servers cannot be reprotected.")

        def effect() -> None:
            for one in items:
                one.phase = Phase.PROTECTED

        return self._busy(vault, plan, self._job(vault, plan, "ReverseReplication", "Reverse replicate"), items, effect)

    # jobs and showing

    def _job(self, vault: Vault, plan: Plan, scenario: str, friendly: str) -> Job:
        return self.service.job(vault, scenario, friendly, [], "RecoveryPlan", plan.name, plan.name)

    def _later(self, vault: Vault, plan: Plan, scenario: str, friendly: str, effect: Callable[[], None]) -> Later:
        return self._busy(vault, plan, self._job(vault, plan, scenario, friendly), [], effect)

    def _busy(self, vault: Vault, plan: Plan, job: Job, items: list[Item], effect: Callable[[], None]) -> Later:
        before = [(one, one.phase, one.drill) for one in items]
        for one in items:
            one.busy, one.job = True, job
        if items:
            plan.job, plan.job_status = job, "InProgress"

        def free() -> None:
            for one in items:
                one.busy = False

        def finish() -> dict[str, Any]:
            effect()
            free()
            if items and plan.job_status == "InProgress":
                plan.job_status = "Succeeded"
            return self._show(vault, plan)

        def failed(_: ArmError) -> None:
            """What was done stays; what was not is as before [inf]."""
            free()
            plan.job_status = "Failed"
            for item, phase, drill in before:
                if item.phase is Phase.FAILING_OVER:
                    item.phase = phase
                if item.drill is Drill.RUNNING:
                    item.drill = drill

        return self.service.run(vault, job, plan_id(vault, plan), finish, failed)


_EMPTY: dict[str, Any] = {"replicationProtectedItems": [], "startGroupActions": [], "endGroupActions": []}
