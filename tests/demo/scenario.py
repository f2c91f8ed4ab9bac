"""How the story that the demo tells begins: two machines are protected, and a drill is played at a chosen point."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from glob import glob
from pathlib import Path
from typing import Any

from tests.demo import manifests
from tests.demo.kube import DemoFailed, Kube, Object, condition, phase
from tests.demo.stage import CONTAINER, Stage
from tests.demo.summary import Summary
from tests.demo.watcher import PORT, Watcher, ask
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.machines.spec import Script

SOURCE_SITE, RECOVERY_SITE = "stack", "shore"
NAMESPACED = (
    "recoveryvaults", "sites", "processservers", "replicationpolicies", "protectedvms", "failoverplans",
    "testfailovers", "failoverruns", "tasks", "events", "leases", "configmaps", "roles", "serviceaccounts",
)  # fmt: skip
RECOVERY_SCRIPT = """#!/bin/sh
# Started on every recovered copy of this machine, once its disks are mounted.
[ -e /data/ledger.py ] || exit 0
exec setsid {python} /data/ledger.py /data/ledger.db --port {port} </dev/null >/run/ledger.log 2>&1 &
"""
Act = tuple[str, Callable[[], None]]


class Scenario:
    """One play of the story on a stage; `show` gets a live line, `tell` a lasting one.

    Attributes:
        patience: by what the waits are stretched, for machines that are slow.
        sizes: the machines by name, with the size of their disk in MiB.
        watchers: who follows each machine's ledger, where it runs now.
    """

    patience = 3.0
    sizes: Mapping[str, int] = {"web-01": 512, "db-01": 320}

    def __init__(
        self, stage: Stage, summary: Summary, show: Callable[[str], None], tell: Callable[[str], None]
    ) -> None:
        self.stage = stage
        self.kube: Kube = stage.kube
        self.summary = summary
        self.show = show
        self.tell = tell
        script = Script("10-ledger", RECOVERY_SCRIPT.format(python="/usr/bin/python3", port=PORT))
        self.sources = {
            name: NamespaceSource(
                (SourceDisk(size_mib=size, mount="/data"),), directory=stage.directory / "source", name=name,
                scripts=(script,),
            )
            for name, size in self.sizes.items()
        }  # fmt: skip
        self.watchers: dict[str, Watcher] = {}
        self.machine = "web-01"
        self.source = self.sources[self.machine]

    def acts(self) -> list[Act]:
        """Return the steps of the story, in order."""
        return [
            ("start the control plane and the storage emulator", self.stage.up),
            ("install the chart, start the operator", self.stage.install),
            ("start two machines with databases that never stop writing", self.start_source),
            ("apply vault, sites, policy and secrets", self.apply_ground),
            ("register a process server at each site", self.start_process_servers),
            ("protect the machines: push the agents, first copy", self.protect),
            ("collect recovery points", self.collect_points),
            ("test failover to a chosen point", self.drill),
            ("clean the drill up", self.clean_up),
        ]

    def play(self) -> None:
        """Play every step; the first that fails ends the story with its exception."""
        acts = self.acts()
        for number, (name, act) in enumerate(acts, 1):
            self.tell(f"[{number}/{len(acts)}] {name}")
            with self.summary.step(name):
                act()

    def close(self) -> None:
        """Stop watching; the machines are removed unless the environment is kept."""
        for watcher in self.watchers.values():
            watcher.close()

    def watching(self) -> bool:
        """Tell whether the source's ledger still answers."""
        try:
            return bool(ask(self.source.address, "last", timeout=2))
        except (OSError, ValueError):
            return False

    def start_source(self) -> None:
        """Bring the source machines up and their ledgers with them."""
        repository = Path(__file__).resolve().parents[2]
        for name, source in self.sources.items():
            code = "import sys; from pathlib import Path; from tests.machines.namespace_source import NamespaceSource; "
            code += f"NamespaceSource(directory=Path({str(source.directory)!r}), name={name!r}).close()"
            self.stage.environment.clean_with(["/usr/bin/env", "-C", str(repository), sys.executable, "-c", code])
            if source is not self.source:  # one login for all
                shutil.copy(self.source.key_path, source.key_path)
                shutil.copy(self.source.key_path.with_suffix(".key.pub"), source.key_path.with_suffix(".key.pub"))
            source.open()
            script = source.scripts[0].content
            source.exec("cat > /data/ledger.py", stdin=(repository / "tests" / "demo" / "ledger.py").read_text())
            source.exec("mkdir -p /etc/farshore/recovery.d && cat > /etc/farshore/recovery.d/10-ledger", stdin=script)
            source.exec("chmod 755 /etc/farshore/recovery.d/10-ledger && /etc/farshore/recovery.d/10-ledger")
            watcher = self.watchers[name] = Watcher(source.address)
            self._until(lambda watcher=watcher: watcher.newest > 20, f"the ledger of {name} does not write", 120)  # type: ignore[misc]
            self.tell(f"    {name} at {source.address}, transaction {watcher.newest} and counting")

    def apply_ground(self) -> None:
        """Apply the samples but for the machine, the plan and the drill."""
        storage = self.stage.environment.azurite
        here = manifests.Here(
            addresses={name: source.address for name, source in self.sources.items()},
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
            self.kube.wait("site", site, lambda one: condition(one, "Ready") == "True", within=360, show=self.show)

    def start_process_servers(self) -> None:
        """Start one process server where the machine is, and one where it shall be recovered."""
        home = self.source.machines.run_dir
        self.stage.start_process_server(SOURCE_SITE, "ps-stack", self.source.gateway, home)
        self.stage.start_process_server(RECOVERY_SITE, "ps-shore", "127.0.0.1")
        for name in ("ps-stack", "ps-shore"):
            self.kube.wait(
                "processserver", name, lambda one: condition(one, "Ready") == "True", within=360, show=self.show
            )

    def protect(self) -> None:
        """Apply the ProtectedVMs and wait for the first recovery point of each."""
        self.kube.apply(self._write("ProtectedVM"))
        done = [self._reach(name, "Protected", 180) for name in self.sources]
        copied = [one["status"]["replication"] for one in done]
        self.summary.initial_replication = {
            "bytes": sum(one["initialBytes"] for one in copied),
            "seconds": round(max(one["initialSeconds"] for one in copied), 3),
        }

    def collect_points(self) -> None:
        """Wait until there are enough points to choose from."""
        self._until(lambda: len(self.points()) >= 3, "no further recovery points appear", 240)
        self.tell(self.stage.farshore("points", self.machine).rstrip())

    def drill(self) -> None:
        """Drill with the point before the newest, and judge the copy and the original."""
        following, chosen = self.points()[:2]
        self.tell(f"    chosen: {chosen['name']} of {chosen['time']}")
        self.begin_drill(chosen["name"])
        drilled = self.kube.wait(
            "testfailover",
            self._name("TestFailover"),
            lambda one: phase(one) == "Succeeded",
            within=180 * self.patience,
            say=progress,
            show=self.show,
            failed=failure,
        )
        run = self._run(drilled["status"]["run"])
        address = run["status"]["members"][0]["address"]
        found = self._check(address)
        watcher = self.watchers[self.machine]
        before = watcher.newest
        self._until(lambda: watcher.newest > before + 5, "the drill disturbed the original: it stopped writing", 120)
        at_least, at_most = watcher.bounds(moment(chosen["time"]), moment(following["time"]))
        known = at_least <= found["last"] <= at_most
        self.summary.test_failover = {
            "rto_seconds": run["status"]["rtoSeconds"],
            "disks_match": run["status"]["disksVerified"],
            "database_ok": known,
        }
        self.tell(
            f"    the copy answers at {address}: last transaction {found['last']}, expected {at_least} to {at_most}; "
            f"the original is at {watcher.newest}"
        )
        if not known:
            raise DemoFailed(f"the drilled ledger ends at {found['last']}, not within {at_least} and {at_most}")

    def begin_drill(self, point: str) -> None:
        """Apply the sample drill, with a point."""
        drill = next(one for one in self.objects if one["kind"] == "TestFailover")
        drill["spec"]["recoveryPoint"] = point
        self.kube.apply(self._write("TestFailover"))

    def clean_up(self) -> None:
        """Delete the drill and see that nothing of it is left."""
        name = self._name("TestFailover")
        self.kube.delete("testfailover", name)
        self.kube.wait_gone("testfailover", name, within=240 * self.patience)
        if left := self._recovered_disks():
            raise DemoFailed(f"the drill left disks behind: {left}")

    def points(self, machine: str = "") -> list[dict[str, Any]]:
        """Return a machine's recovery points, newest first."""
        named = machine or self.machine
        answer: list[dict[str, Any]] = json.loads(self.stage.farshore("points", named, "--output", "json"))
        return answer

    def _check(self, address: str) -> dict[str, Any]:
        """Ask a ledger what it found when it started, before it wrote. Raises DemoFailed if that is damaged."""
        deadline = time.monotonic() + 180 * self.patience
        while True:
            try:
                answer = ask(address, "check")
                break
            except (OSError, ValueError) as error:  # ValueError: it hung up without a word
                if time.monotonic() > deadline:
                    raise DemoFailed(f"the recovered ledger at {address}:{PORT} does not answer: {error}") from error
                time.sleep(0.3)
        found: dict[str, Any] = answer["found"]
        if found["integrity"] != "ok" or found["wrong"] or found["missing"] or not found["last"]:
            raise DemoFailed(f"the recovered ledger is damaged: {found}")
        return found

    def _reach(self, machine: str, wanted: str, within: float) -> Object:
        """Wait until a machine is in a phase."""
        return self.kube.wait(
            "protectedvm",
            machine,
            lambda one: phase(one) == wanted,
            within=within * self.patience,
            say=progress,
            show=self.show,
            failed=failure,
        )

    def _recovered_disks(self) -> list[Path]:
        machines = self.stage.directory / "ps-shore" / "state" / "machines"
        return [Path(one) for one in glob(f"{machines}/*/*.raw")]  # Path.glob fails when a directory goes meanwhile

    def _run(self, name: str) -> Object:
        found = self.kube.get("failoverrun", name)
        if found is None:
            raise DemoFailed(f"FailoverRun {name} is not there")
        return found

    def _write(self, kind: str) -> str:
        chosen = [one for one in self.objects if one["kind"] == kind]
        return manifests.write(chosen, self.stage.directory / "manifests" / f"{kind.lower()}.yaml")

    def _name(self, kind: str) -> str:
        return str(next(one for one in self.objects if one["kind"] == kind)["metadata"]["name"])

    def _until(self, done: Callable[[], bool], otherwise: str, within: float, pause: float = 0.3) -> None:
        """Wait until `done`, for `within` seconds stretched by our patience. Raises DemoFailed."""
        deadline = time.monotonic() + within * self.patience
        while not done():
            if time.monotonic() > deadline:
                raise DemoFailed(otherwise)
            time.sleep(pause)


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
