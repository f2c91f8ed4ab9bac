"""How the story goes on: two machines move to the recovery site without loss, live there, and come home again.

Every move is an edit of the FailoverPlan, as a commit in Git would make it. Nothing is taken on trust: the ledgers'
acknowledgements are compared with what each machine finds when it starts, and the disks at home, once they are written
back, byte for byte with those that the recovered machines left.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.demo.kube import DemoFailed, Object, condition, phase
from tests.demo.scenario import Act, Scenario, moment
from tests.demo.watcher import Watcher

from farshore_engine.machines.directory import MachineDirectory

PIECE = 4 << 20
PROBES = [{"name": "ledger", "tcp": {"port": 5555}}]
FORWARDS, BACK = "recovery", "source"
WRITES_THERE = 50
"""Transactions that each recovered machine acknowledges before it goes home."""


class Circle(Scenario):
    """The whole story. `moves` has the name of each run that moved machines."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.moves: dict[str, str] = {}

    def acts(self) -> list[Act]:
        """Return the steps of the story, in order."""
        return [
            *super().acts(),
            ("planned failover: nothing that was acknowledged is lost", self.fail_over),
            ("commit the failover", self.commit),
            ("reprotect: replicate from the recovery site, only what differs", self.reprotect),
            ("let the recovered machines work", self.work),
            ("failback: write back what changed, compare the disks byte for byte", self.fail_back),
            ("commit the failback", self.commit_back),
            ("protected forwards again", self.protected_again),
        ]

    def fail_over(self) -> None:
        """Declare that the machines run at the recovery site, and judge what runs there."""
        self.edit(activeSite=BACK, mode="planned", shutdownSource="Required", probes=PROBES)
        self.kube.wait("failoverplan", self.plan, lambda one: condition(one, "Ready") == "True", within=360,
                       show=self.show)  # fmt: skip
        self.edit(activeSite=FORWARDS)
        run = self._moved(FORWARDS, "FailedOver")
        lost = self._judge(run)
        self.summary.failover = {
            "mode": "planned",
            "rpo_seconds": run["status"]["rpoSeconds"],
            "rto_seconds": run["status"]["rtoSeconds"],
            "disks_match": run["status"]["disksVerified"],
            "database_ok": lost == 0,
            "lost_transactions": lost,
            "bytes_moved": run["status"]["bytesMoved"],
        }
        self._none(lost)

    def commit(self) -> None:
        """Declare the failover final."""
        self.edit(commit=self.moves[FORWARDS])
        for machine in self.sources:
            self._reach(machine, "Committed", 180)

    def reprotect(self) -> None:
        """Have the recovered machines replicated back, and see how much that took."""
        self.edit(reprotect=self.moves[FORWARDS])
        done = [self._reach(machine, "ProtectedReverse", 180)["status"] for machine in self.sources]
        first = [self._first_point(machine, status["assignment"]["epoch"])
                 for machine, status in zip(self.sources, done, strict=True)]  # fmt: skip
        self.summary.reprotect = {
            "bytes_moved": sum(point["bytesChanged"] for point in first),
            "disk_bytes": sum(self.sizes.values()) << 20,
            "seconds": round(self._seconds("Reprotect"), 1),
        }

    def work(self) -> None:
        """Wait until each recovered machine has acknowledged more, and another point has them."""
        for watcher in self.watchers.values():
            before = watcher.newest
            self._until(lambda w=watcher, b=before: w.newest > b + WRITES_THERE, "a recovered ledger stands", 240)  # type: ignore[misc]
        said = ", ".join(f"{name} is at {watcher.newest}" for name, watcher in self.watchers.items())
        self.tell(f"    {said}")

    def fail_back(self) -> None:
        """Declare that the machines run at home again, and judge their disks before they start, and then their data."""
        with ExitStack() as switches:
            held = {name: switches.enter_context(ExitStack()) for name in self.sources}
            for name, switch in held.items():  # nobody starts a machine whose lock is held
                switch.enter_context(MachineDirectory(self.source.machines.run_dir.absolute(), name).lock())
            self.edit(activeSite=BACK)
            for name in self._order():
                self._written_back(name)
                self._compare(name)
                held[name].close()
            run = self._moved(BACK, "FailedBack")
        lost = self._judge(run)
        members = run["status"]["members"]
        self.summary.failback = {
            "bytes_moved": run["status"]["bytesMoved"],
            "bytes_written": sum(member["bytesWritten"] for member in members),
            "disk_bytes": sum(member["diskBytes"] for member in members),
            "lost_transactions": lost,
            "disks_equal": True,  # `_compare` has raised otherwise
            "rto_seconds": run["status"]["rtoSeconds"],
        }
        self._none(lost)

    def commit_back(self) -> None:
        """Declare the failback final; then the recovered machines go."""
        self.edit(commit=self.moves[BACK])
        self._until(lambda: not self._recovered_disks(), f"disks stay behind: {self._recovered_disks()}", 240)

    def protected_again(self) -> None:
        """Wait until every machine is replicated forwards, and look whether each works as before."""
        for machine in self.sources:
            status = self._reach(machine, "Protected", 180)["status"]
            if status["assignment"]["direction"] != "Forward" or status.get("recovered"):
                raise DemoFailed(f"{machine} is not where it was: {status['assignment']}, {status.get('recovered')}")
            before = self.watchers[machine].newest
            self._until(lambda m=machine, b=before: self.watchers[m].newest > b + 5, f"{machine} does not work", 180)  # type: ignore[misc]
        self.tell(self.stage.farshore("status").rstrip())

    # -- what the steps share --------------------------------------------------------------------------------------

    @property
    def plan(self) -> str:
        """Name of the plan."""
        return self._name("FailoverPlan")

    def edit(self, **spec: Any) -> None:
        """Change the plan's manifest and apply it."""
        plan = next(one for one in self.objects if one["kind"] == "FailoverPlan")
        plan["spec"] |= spec
        self.kube.apply(self._write("FailoverPlan"))

    def runs(self, kind: str) -> list[Object]:
        """Return the runs of a kind."""
        return [run for run in self.kube.all("failoverruns") if run["spec"]["kind"] == kind]

    def _moved(self, where: str, wanted: str) -> Object:
        """Wait until all machines were moved; return the run, and follow them where they are now."""
        for machine in self._order():
            self._reach(machine, wanted, 240)
        found = self.kube.wait("failoverplan", self.plan, lambda one: phase(one) == "AwaitingCommit", within=360)
        self.moves[where] = found["status"]["activeRun"]
        return self._run(self.moves[where])

    def _judge(self, run: Object) -> int:
        """Compare what each machine found when it started with what was acknowledged; return how much was lost."""
        lost = 0
        for member in run["status"]["members"]:
            name, address = member["protectedVM"], member["address"]
            acknowledged = self.watchers.pop(name)
            acknowledged.close()
            found = self._check(address)
            lost += max(0, acknowledged.newest - found["last"])
            self.tell(
                f"    {name} answers at {address}: its ledger had transaction {found['last']} when it started, "
                f"{acknowledged.newest} was the last that was acknowledged before"
            )
            self.watchers[name] = Watcher(address)
        return lost

    def _none(self, lost: int) -> None:
        if lost:
            raise DemoFailed(f"{lost} acknowledged transactions were lost on a planned move")

    def _order(self) -> list[str]:
        """Return the machines in the order of the plan's groups."""
        plan = next(one for one in self.objects if one["kind"] == "FailoverPlan")
        return [member["name"] for group in plan["spec"]["groups"] for member in group["members"]]

    def _written_back(self, name: str) -> None:
        """Wait until a machine's disks at home were written; raises DemoFailed if the failback fails before."""

        def wrote() -> bool:
            found = self.runs("Failback")
            for run in found:
                self.show(running(run))
                if phase(run) == "Failed":
                    raise DemoFailed(f"the failback failed: {failed_steps(run)}")
            steps = [step for run in found for step in run.get("status", {}).get("steps", ())]
            return any((s["name"], s["member"], s["phase"]) == ("WriteBack", name, "Succeeded") for s in steps)

        self._until(wrote, f"the disks of {name} are not written back", 240)

    def _compare(self, name: str) -> None:
        """Compare the disk at home with what the recovered machine left on its own, byte for byte."""
        status = (self.kube.get("protectedvm", name) or {})["status"]
        there = self.stage.directory / "ps-shore" / "state" / "machines" / status["recovered"]["machine"]
        ours, theirs = self.sources[name].backing_file(0), there / "disk-0.raw"
        at = first_difference(ours, theirs)
        if at is not None:
            raise DemoFailed(f"{ours} differs from {theirs} at byte {at}")
        self.tell(f"    {name}: all {ours.stat().st_size >> 20} MiB of its disk are as the recovered machine left them")

    def _first_point(self, machine: str, epoch: int) -> dict[str, Any]:
        """Return the first point that was made in an epoch or later."""
        answer = self.points(machine)
        return min((one for one in answer if one["epoch"] >= epoch), key=lambda one: int(one["slot"]))

    def _seconds(self, kind: str) -> float:
        status = self.runs(kind)[0]["status"]
        return moment(status["finishedAt"]) - moment(status["startedAt"])


def running(run: Object) -> str:
    """Return one line on where a run is."""
    steps = [step for step in run.get("status", {}).get("steps", ()) if step["phase"] == "Running"]
    said = "; ".join(f"{step['member']} {step['name']} {step.get('message', '')}" for step in steps)
    return f"{run['spec']['kind']}: {said}"


def failed_steps(run: Object) -> str:
    """Return what failed in a run."""
    steps = [step for step in run.get("status", {}).get("steps", ()) if step["phase"] == "Failed"]
    return "; ".join(f"{step['member']} {step['name']}: {step.get('message', '')}" for step in steps)


def first_difference(one: Path, other: Path) -> int | None:
    """Return the first byte at which two files differ, None if they are equal."""
    with one.open("rb") as mine, other.open("rb") as theirs:
        at = 0
        while True:
            left, right = mine.read(PIECE), theirs.read(PIECE)
            if left != right:
                pairs = zip(left, right, strict=False)
                return at + next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
            if not left:
                return None
            at += len(left)
