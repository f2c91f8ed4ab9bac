"""The story that the demo tells: protect, drill, clean up, fail over to a chosen point, check what was recovered."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.demo import manifests
from tests.demo.kube import DemoFailed, Kube, Object, condition, phase
from tests.demo.stage import CONTAINER, Stage
from tests.demo.summary import Summary
from tests.demo.watcher import PORT, Watcher, ask
from tests.machines.namespace_source import NamespaceSource, SourceDisk

SOURCE_SITE, RECOVERY_SITE = "stack", "shore"
NAMESPACED = (
    "recoveryvaults", "sites", "processservers", "replicationpolicies", "protectedvms", "failoverplans",
    "testfailovers", "failoverruns", "tasks", "events", "leases", "configmaps", "roles", "serviceaccounts",
)  # fmt: skip
RECOVERY_SCRIPT = """#!/bin/sh
# Started on every recovered copy of this machine, once its disks are mounted.
exec setsid {python} /data/ledger.py /data/ledger.db --port {port} </dev/null >/run/ledger.log 2>&1 &
"""


class Scenario:
    """One play of the story on a stage; `show` gets a live line, `tell` a lasting one.

    Attributes:
        patience: by what the waits are stretched, for machines that are slow.
    """

    patience = 1.0

    def __init__(
        self, stage: Stage, summary: Summary, show: Callable[[str], None], tell: Callable[[str], None]
    ) -> None:
        self.stage = stage
        self.kube: Kube = stage.kube
        self.summary = summary
        self.show = show
        self.tell = tell
        self.source = NamespaceSource(
            (SourceDisk(size_mib=512, mount="/data"),), directory=stage.directory / "source", name="web-01"
        )
        self.watcher: Watcher | None = None
        self.machine = "web-01"

    def play(self) -> None:
        """Play every step; the first that fails ends the story with its exception."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("start the control plane and the storage emulator", self.stage.up),
            ("install the chart, start the operator", self.stage.install),
            ("start a machine with a database that never stops writing", self.start_source),
            ("apply vault, sites, policy and secrets", self.apply_ground),
            ("register a process server at each site", self.start_process_servers),
            ("protect the machine: push the agent, first copy", self.protect),
            ("collect recovery points", self.collect_points),
            ("test failover", self.drill),
            ("clean the drill up", self.clean_up),
            ("fail over to a chosen point", self.fail_over),
        ]
        for number, (name, act) in enumerate(steps, 1):
            self.tell(f"[{number}/{len(steps)}] {name}")
            with self.summary.step(name):
                act()

    def close(self) -> None:
        """Stop watching; the machine is removed unless the environment is kept."""
        if self.watcher is not None:
            self.watcher.close()

    def watching(self) -> bool:
        """Tell whether the source's ledger still answers."""
        try:
            return bool(ask(self.source.address, "last", timeout=2))
        except OSError:
            return False

    def start_source(self) -> None:
        """Bring the source machine up and its ledger with it."""
        repository = Path(__file__).resolve().parents[2]
        code = "import sys; from pathlib import Path; from tests.machines.namespace_source import NamespaceSource; "
        code += f"NamespaceSource(directory=Path({str(self.source.directory)!r}), name='web-01').close()"
        self.stage.environment.clean_with(["/usr/bin/env", "-C", str(repository), sys.executable, "-c", code])
        self.source.open()
        script = RECOVERY_SCRIPT.format(python="/usr/bin/python3", port=PORT)
        ledger = (repository / "tests" / "demo" / "ledger.py").read_text()
        self.source.exec("cat > /data/ledger.py", stdin=ledger)
        self.source.exec("mkdir -p /etc/farshore/recovery.d && cat > /etc/farshore/recovery.d/10-ledger", stdin=script)
        self.source.exec("chmod 755 /etc/farshore/recovery.d/10-ledger && /etc/farshore/recovery.d/10-ledger")
        self.watcher = Watcher(self.source.address)
        self._until(lambda: self.watcher is not None and self.watcher.newest > 20, "the ledger does not write", 20)
        self.tell(f"    {self.machine} at {self.source.address}, transaction {self.watcher.newest} and counting")

    def apply_ground(self) -> None:
        """Apply the samples but for the machine, the plan and the drill."""
        storage = self.stage.environment.azurite
        here = manifests.Here(
            address=self.source.address,
            private_key=self.source.key_path.read_text(),
            account_url=storage.account_url,
            account_key=storage.key,
            container=CONTAINER,
            interval="5s",
        )
        self.objects = manifests.adapted(manifests.samples(), here)
        ground = [
            one
            for one in self.objects
            if one["kind"] not in ("ProtectedVM", "FailoverPlan", "TestFailover", "ProcessServer")
        ]
        self.kube.apply(manifests.write(ground, self.stage.directory / "manifests" / "ground.yaml"))
        for site in (SOURCE_SITE, RECOVERY_SITE):
            self.kube.wait("site", site, lambda one: condition(one, "Ready") == "True", within=30, show=self.show)

    def start_process_servers(self) -> None:
        """Start one process server where the machine is, and one where it shall be recovered."""
        self.stage.start_process_server(SOURCE_SITE, "ps-stack", self.source.gateway)
        self.stage.start_process_server(RECOVERY_SITE, "ps-shore", "127.0.0.1")
        for name in ("ps-stack", "ps-shore"):
            self.kube.wait(
                "processserver", name, lambda one: condition(one, "Ready") == "True", within=60, show=self.show
            )

    def protect(self) -> None:
        """Apply the ProtectedVM and wait for its first recovery point."""
        self.kube.apply(self._write("ProtectedVM"))
        done = self.kube.wait(
            "protectedvm",
            self.machine,
            lambda one: phase(one) == "Protected",
            within=180 * self.patience,
            say=progress,
            show=self.show,
        )
        replication = done["status"]["replication"]
        self.summary.initial_replication = {
            "bytes": replication["initialBytes"],
            "seconds": round(replication["initialSeconds"], 3),
        }

    def collect_points(self) -> None:
        """Wait until there are enough points to choose from."""
        self._until(lambda: len(self.points()) >= 4, "no further recovery points appear", 60)
        self.tell(self.stage.farshore("points", self.machine).rstrip())

    def drill(self) -> None:
        """Run the sample drill, and judge the copy and the original."""
        self.kube.apply(self._write("TestFailover"))
        name = self._name("TestFailover")
        drilled = self.kube.wait(
            "testfailover",
            name,
            lambda one: phase(one) == "Succeeded",
            within=180 * self.patience,
            say=progress,
            show=self.show,
            failed=failure,
        )
        run = self._run(drilled["status"]["run"])
        checked = self._check(run)
        before = self._watcher.newest
        self._until(
            lambda: self._watcher.newest > before + 5, "the drill disturbed the original: it stopped writing", 20
        )
        self.summary.test_failover = {
            "rto_seconds": run["status"]["rtoSeconds"],
            "disks_match": run["status"]["disksVerified"],
            "database_ok": checked["ok"],
        }
        self.tell(f"    the copy answers at {checked['address']}, last transaction {checked['last']}")

    def clean_up(self) -> None:
        """Delete the drill and see that nothing of it is left."""
        name = self._name("TestFailover")
        self.kube.delete("testfailover", name)
        self.kube.wait_gone("testfailover", name, within=90)
        left = list((self.stage.directory / "ps-shore" / "state" / "machines").glob("*/*.raw"))
        if left:
            raise DemoFailed(f"the drill left disks behind: {left}")

    def fail_over(self) -> None:
        """Choose the point before the newest, declare that the machine runs at the recovery site, judge what runs."""
        plan = next(one for one in self.objects if one["kind"] == "FailoverPlan")
        self.kube.apply(self._write("FailoverPlan"))
        name = plan["metadata"]["name"]
        self.kube.wait("failoverplan", name, lambda one: condition(one, "Ready") == "True", within=60, show=self.show)
        chosen = self.points()[1]
        self.tell(f"    chosen: {chosen['name']} of {chosen['time']}")
        plan["spec"] |= {"activeSite": "recovery", "recoveryPoint": chosen["name"]}
        self.kube.apply(self._write("FailoverPlan"))
        self.kube.wait(
            "protectedvm",
            self.machine,
            lambda one: phase(one) == "FailedOver",
            within=240 * self.patience,
            say=progress,
            show=self.show,
            failed=failure,
        )
        found = self.kube.get("failoverplan", name) or {}
        run = self._run(found["status"].get("activeRun") or found["status"]["lastRun"])
        checked = self._check(run)
        at_least, at_most = self._watcher.bounds(moment(chosen["time"]))
        known = at_least <= checked["last"] and (at_most is None or checked["last"] <= at_most)
        self.summary.failover = {
            "rpo_seconds": run["status"]["rpoSeconds"],
            "rto_seconds": run["status"]["rtoSeconds"],
            "disks_match": run["status"]["disksVerified"],
            "database_ok": checked["ok"] and known,
            "bytes_moved": run["status"]["bytesMoved"],
        }
        self.tell(
            f"    the ledger answers at {checked['address']}: last transaction {checked['last']}, "
            f"expected {at_least} to {at_most}; {self._watcher.newest} were acknowledged before it was shut down"
        )
        if not known:
            raise DemoFailed(f"the recovered ledger ends at {checked['last']}, not within {at_least} and {at_most}")

    def points(self) -> list[dict[str, Any]]:
        """Return the machine's recovery points, newest first."""
        answer: list[dict[str, Any]] = json.loads(self.stage.farshore("points", self.machine, "--output", "json"))
        return answer

    def _check(self, run: Object) -> dict[str, Any]:
        """Ask the recovered machine's ledger what it found when it started."""
        address = run["status"]["members"][0]["address"]
        deadline = time.monotonic() + 30
        while True:
            try:
                answer = ask(address, "check")
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise DemoFailed(f"the recovered ledger at {address}:{PORT} does not answer: {error}") from error
                time.sleep(0.3)
        found = answer["found"]
        good = found["integrity"] == "ok" and found["wrong"] == 0 and found["missing"] == 0 and found["last"] > 0
        if not good:
            raise DemoFailed(f"the recovered ledger is damaged: {found}")
        return {"ok": good, "last": found["last"], "address": address}

    def _run(self, name: str) -> Object:
        found = self.kube.get("failoverrun", name)
        if found is None:
            raise DemoFailed(f"FailoverRun {name} is not there")
        return found

    @property
    def _watcher(self) -> Watcher:
        assert self.watcher is not None
        return self.watcher

    def _write(self, kind: str) -> str:
        chosen = [one for one in self.objects if one["kind"] == kind]
        return manifests.write(chosen, self.stage.directory / "manifests" / f"{kind.lower()}.yaml")

    def _name(self, kind: str) -> str:
        return str(next(one for one in self.objects if one["kind"] == kind)["metadata"]["name"])

    def _until(self, done: Callable[[], bool], otherwise: str, within: float) -> None:
        deadline = time.monotonic() + within
        while not done():
            if time.monotonic() > deadline:
                raise DemoFailed(otherwise)
            time.sleep(0.3)


def progress(found: Object) -> str:
    """Return one line on where an object is."""
    status = found.get("status", {})
    copied = status.get("replication", {}).get("progress")
    rate = f", {copied['percent']} % at {copied['rate'] / 2**20:.0f} MiB/s" if copied else ""
    return (
        f"{found['kind']} {found['metadata']['name']}: {status.get('phase', 'new')}{rate} {status.get('nextStep', '')}"
    )


def failure(found: Object) -> str:
    """Return why there is nothing to wait for any more, empty while there is."""
    if phase(found) == "Failed":
        return str(found["status"].get("message", "it failed"))
    return "it is stalled" if condition(found, "Stalled") == "True" else ""


def moment(text: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()
