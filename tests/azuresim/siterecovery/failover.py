"""Test failover and its clean-up, failover, change of point, commit, cancel, reprotect (tutorial: Step 6 and "Fail
over")."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery import show_items as show
from tests.azuresim.siterecovery.failover_jobs import drill_details, drill_tasks, failover_tasks, of_job
from tests.azuresim.siterecovery.landing import Landing, Place
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.networks import drill_network, same_address
from tests.azuresim.siterecovery.refusals import bad, check_alive, not_allowed, not_found
from tests.azuresim.siterecovery.rules import allowed
from tests.azuresim.siterecovery.state import HYPERV, MODERN, Drill, Item, Job, Phase, Point, Task, last

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

TO_AZURE = "PrimaryToRecovery"


class Failover:
    """The calls of the failover's life. Plans use them too (`start_*`)."""

    def __init__(self, service: SiteRecovery, landing: Landing) -> None:
        self.service, self.landing = service, landing

    def routes(self, item: str) -> list[Route]:
        made = models.ReplicationProtectedItem
        return [
            Route("POST", item + "/testFailover", self.test, VERSIONS, models.TestFailoverInput, made),
            Route("POST", item + "/testFailoverCleanup", self.cleanup, VERSIONS, models.TestFailoverCleanupInput, made),
            Route("POST", item + "/unplannedFailover", self.unplanned, VERSIONS, models.UnplannedFailoverInput, made),
            Route("POST", item + "/plannedFailover", self.planned, VERSIONS, models.PlannedFailoverInput, made),
            Route("POST", item + "/applyRecoveryPoint", self.change, VERSIONS, models.ApplyRecoveryPointInput, made),
            Route("POST", item + "/failoverCommit", self.commit, VERSIONS, reply=made),
            Route("POST", item + "/failoverCancel", self.cancel, VERSIONS, reply=made),
            Route("POST", item + "/reProtect", self.reprotect, VERSIONS, models.ReverseReplicationInput, made),
        ]  # fmt: skip

    # what all have in common

    def _check(self, item: Item, operation: str, details: dict[str, Any] | None) -> dict[str, Any]:
        check_alive(item.vault, item.provider)
        found = allowed(item)
        if operation not in found:
            raise not_allowed(item, operation, found)
        # A Hyper-V example of the specification sends another type to it: only our providers are strict.
        if details is not None and details.get("instanceType") != item.provider and item.provider != HYPERV:
            raise bad(f"The item is of provider {item.provider}.", "properties.providerSpecificDetails.instanceType")
        return details or {}

    def _point(self, item: Item, wanted: str | None) -> Point | None:
        """The point with this ARM id; None: the latest."""
        if not wanted:
            return None
        for one in item.points:
            if wanted.lower() in (f"{item.id}/recoveryPoints/{one.id}".lower(), one.id.lower()):
                return one
        raise not_found("recovery point", last(wanted))

    def _begin(self, item: Item, scenario: str, friendly: str, tasks: list[Task]) -> Job:
        job = self.service.job(item.vault, scenario, friendly, tasks, "ProtectionEntity", item.name, item.friendly)
        job.affected, item.job, item.busy = show.affected(item), job, True
        return job

    def _run(
        self, item: Item, job: Job, effect: Callable[[], None], failed: Callable[[], None] = lambda: None
    ) -> Later:
        def finish() -> dict[str, Any]:
            effect()
            item.busy = False
            return show.item(self.service, item)

        def undo(_: ArmError) -> None:
            item.busy = False
            failed()

        return self.service.run(item.vault, job, item.id, finish, undo)

    # test failover

    def test(self, call: Call) -> Later:
        item, given = self.service.find_item(call), call.body.get("properties") or {}
        details = self._check(item, "TestFailover", given.get("providerSpecificDetails"))
        if given.get("failoverDirection") not in (TO_AZURE, None):
            raise bad("A test failover goes from primary to recovery.", "properties.failoverDirection")
        network = drill_network(self.service.sim, item, given)
        point = self._point(item, details.get("recoveryPointId"))
        job = self._begin(item, "TestFailover", "Test failover", drill_tasks())
        item.drill = Drill.RUNNING
        return self._run(item, job, lambda: self.start_test(item, job, network, point), lambda: self._reset(item))

    def _reset(self, item: Item) -> None:
        item.drill = Drill.NONE

    def start_test(self, item: Item, job: Job, network: tuple[str, str], point: Point | None) -> None:
        """Make the test machine; the job then waits for the clean-up [spec example ReplicationJobs_Resume: Suspended,
        WaitingForStopTestFailover, allowed Cancel and Resume]."""
        chosen = point or self._latest(item)
        if item.provider != HYPERV and chosen is not None:
            address = item.target.test_ip or same_address(self.service.sim, item, *network)
            place = Place(f"{item.target.vm_name}-test"[:64], *network, address)
            _, item.drill_made = self.landing.make(item, chosen, place)
        item.failover_point = chosen.id if chosen else ""
        item.drill, item.last_drill = Drill.WAITING, self.service.clock.now()
        job.details = drill_details(item, network, chosen)
        self.service.end(job, state="Suspended", description="WaitingForStopTestFailover")
        job.allowed, job.resume = ["Cancel", "Resume"], lambda comments: self.finish_test(item, comments)

    def _latest(self, item: Item) -> Point | None:
        """Latest: all that has arrived is processed first. "Latest processed" is the newest point there is: a client
        names it."""
        if item.provider == HYPERV:
            return item.points[-1] if item.points else None
        if not item.points and not (item.machine and item.machine.talks):
            raise ArmError(400, "78169", "There is no recovery point to fail over to.")
        return self.service.latest(item)

    def cleanup(self, call: Call) -> Later:
        item = self.service.find_item(call)
        self._check(item, "TestFailoverCleanup", None)
        comments = (call.body.get("properties") or {}).get("comments") or ""
        job = self._begin(
            item,
            "TestFailoverCleanup",
            "Test failover cleanup",
            [Task("TestFailoverCleanupTask", "Clean up the test environment")],
        )
        return self._run(item, job, lambda: self.finish_test(item, comments))

    def finish_test(self, item: Item, comments: str) -> None:
        self.landing.remove(item.drill_made)
        item.drill_made = []
        item.drill = Drill.CLEANED
        item.drill_comments.append(comments)
        for one in item.vault.jobs.values():
            if one.scenario == "TestFailover" and one.target_id == item.name and one.state == "Suspended":
                self.service.end(one)

    # failover

    def unplanned(self, call: Call) -> Later:
        item, given = self.service.find_item(call), call.body.get("properties") or {}
        details = self._check(item, "UnplannedFailover", given.get("providerSpecificDetails"))
        if given.get("failoverDirection") not in (TO_AZURE, None):
            raise bad("The failover goes from primary to recovery.", "properties.failoverDirection")
        shutdown = self.shutdown_wanted(item, given.get("sourceSiteOperations"), details.get("performShutdown"))
        if item.group_name:
            # Machines of a replication group fail over together, with a plan [PS refuses; the code is
            # [inf]]
            raise bad(
                f"'{item.friendly}' is in the replication group '{item.group_name}': fail over with a recovery plan."
            )
        point = self._point(item, details.get("recoveryPointId"))
        return self.failing_over(item, shutdown, point)

    def shutdown_wanted(self, item: Item, operations: str | None, perform: str | None) -> bool:
        """`sourceSiteOperations` Required or NotRequired; of the modernized provider `performShutdown` "true" or
        "false"."""
        if operations not in ("Required", "NotRequired", None):
            raise bad(f"'{operations}' is neither Required nor NotRequired.", "properties.sourceSiteOperations")
        if item.provider == MODERN and str(perform).lower() not in ("true", "false"):
            raise bad(f"'{perform}' is neither true nor false.", "properties.providerSpecificDetails.performShutdown")
        return str(perform).lower() == "true" if item.provider == MODERN else operations == "Required"

    def failing_over(self, item: Item, shutdown: bool, point: Point | None) -> Later:
        job = self._begin(item, "UnplannedFailover", "Failover", failover_tasks(shutdown))
        item.phase = Phase.FAILING_OVER

        def failed() -> None:
            # Tutorial: a cancelled failover does not replicate again; after a failed one it does [inf], and may fail
            # over
            # and be tested [MIGRATE].
            item.phase = Phase.FAILOVER_CANCELLED if job.state == "Cancelled" else Phase.FAILOVER_FAILED

        def again() -> None:
            item.phase = Phase.FAILING_OVER
            self.start_failover(item, job, shutdown, point)

        job.again = again
        return self._run(item, job, lambda: self.start_failover(item, job, shutdown, point), failed)

    def start_failover(self, item: Item, job: Job, shutdown: bool, point: Point | None) -> None:
        """Shut down if asked ("failover continues even if shutdown fails"), then make the machine."""
        machine = item.machine
        chosen = point
        if shutdown and machine is not None:
            if machine.shuts_down and machine.talks:
                chosen = chosen or self._latest(item)
                machine.powered_on = False
            else:
                task = next(one for one in job.tasks if one.name == "ShutdownVirtualMachine")
                task.state = "Failed"
        chosen = chosen or self._latest(item)
        if item.provider != HYPERV and chosen is not None:
            place = Place(item.target.vm_name, item.target.network, item.target.subnet, item.target.static_ip)
            item.vm_id, item.made = self.landing.make(item, chosen, place)
        item.failover_point = chosen.id if chosen else ""
        found = job.details.get("protectedItemDetails", [])
        job.details = {"instanceType": "FailoverJobDetails", "protectedItemDetails": [*found, of_job(item, chosen)]}
        item.phase, item.last_failover = Phase.COMMIT_PENDING, self.service.clock.now()

    def planned(self, call: Call) -> Later:
        """No subclass for our providers exists [SDK]: refused by allowedOperations; Hyper-V for the
        examples."""
        item = self.service.find_item(call)
        self._check(item, "PlannedFailover", None)
        job = self._begin(item, "PlannedFailover", "Planned failover", [])

        def effect() -> None:
            item.phase, item.last_failover = Phase.PLANNED_COMMIT_PENDING, self.service.clock.now()

        return self._run(item, job, effect)

    def change(self, call: Call) -> Later:
        """Another point for the recovered machine: it is made anew."""
        item, given = self.service.find_item(call), call.body.get("properties") or {}
        details = self._check(item, "ChangePit", given.get("providerSpecificDetails"))
        wanted = given.get("recoveryPointId") or details.get("recoveryPointId")
        point = self._point(item, wanted) if item.provider != HYPERV else None
        if point is None and item.provider != HYPERV:
            raise bad("The recovery point is missing.", "properties.recoveryPointId")
        job = self._begin(
            item,
            "ApplyRecoveryPoint",
            "Change recovery point",
            [Task("ApplyRecoveryPointTask", "Change recovery point")],
        )

        def effect() -> None:
            if point is not None:
                self.landing.remove(item.made)
                place = Place(item.target.vm_name, item.target.network, item.target.subnet, item.target.static_ip)
                item.vm_id, item.made = self.landing.make(item, point, place)
                item.failover_point = point.id

        return self._run(item, job, effect)

    def commit(self, call: Call) -> Later:
        item = self.service.find_item(call)
        self._check(item, "Commit", None)
        job = self._begin(item, "CommitFailover", "Commit failover", [Task("CommitFailoverTask", "Commit failover")])
        return self._run(item, job, lambda: self.finish_commit(item))

    def finish_commit(self, item: Item) -> None:
        """Tutorial: "This deletes all available recovery points"."""
        planned = item.phase is Phase.PLANNED_COMMIT_PENDING or item.provider == HYPERV
        self.service.drop_points(item, list(item.points))
        item.phase = Phase.PLANNED_COMMITTED if planned else Phase.COMMITTED

    def cancel(self, call: Call) -> Later:
        """Not in allowedOperations of our providers in any state (`rules`); the example is of Hyper-V."""
        item = self.service.find_item(call)
        if item.provider != HYPERV or item.phase is not Phase.PLANNED_COMMIT_PENDING:
            self._check(item, "CancelFailover", None)
        job = self._begin(item, "CancelFailover", "Cancel failover", [])

        def effect() -> None:
            item.phase = Phase.PROTECTED

        return self._run(item, job, effect)

    def reprotect(self, call: Call) -> Later:
        """A physical machine cannot come back: classic replicates to VMware only, modernized not at all [doc:
        physical server architecture, 2020 and 2022]. Status and code are [inf]."""
        item, given = self.service.find_item(call), call.body.get("properties") or {}
        if item.provider != HYPERV:
            found = allowed(item)
            if "ReverseReplicate" not in found:
                raise not_allowed(item, "ReverseReplicate", found)
            raise ArmError(
                400, "ReprotectNotSupported", f"'{item.friendly}' is a physical server. " + (
                    "The modernized experience does not fail physical servers back." if item.provider == MODERN else
                    "It fails back to a VMware virtual machine only, and the configuration server has no vCenter."
                ), target=str((given.get("providerSpecificDetails") or {}).get("instanceType") or ""),
            )  # fmt: skip
        job = self._begin(item, "ReverseReplication", "Reverse replicate", [])

        def effect() -> None:
            item.phase = Phase.PROTECTED

        return self._run(item, job, effect)
