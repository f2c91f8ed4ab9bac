"""The service: its vaults, time, replication and jobs; and how a test seeds it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta

from tests.azuresim.arm.call import Call
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.sim import AzureSim
from tests.azuresim.siterecovery import rules
from tests.azuresim.siterecovery.jobs import Jobs
from tests.azuresim.siterecovery.refusals import SetupRefused, not_found
from tests.azuresim.siterecovery.state import (
    CLASSIC,
    MODERN,
    Account,
    Container,
    Fabric,
    Item,
    Phase,
    Point,
    Server,
    Task,
    Vault,
    fabric_name,
    last,
)
from tests.azuresim.siterecovery.vaults import remember
from tests.azuresim.siterecovery.world import Clock, SourceMachine, World

KEY_LIFE = timedelta(days=5)
"""Tutorial: "The key is valid for five days after you generate it"."""
SETUP_SKEW = timedelta(minutes=5)
"""Tutorial: "Installation fails if the time is more than five minutes off local time"."""
ACCOUNT_DELAY = timedelta(minutes=15)
"""Tutorial: "It can take 15 minutes or more for the account name to appear"."""


class SiteRecovery(Jobs):
    """Everything of Microsoft.RecoveryServices in one simulator. `sync_looks`: reads of an item until its initial
    replication (or resync) is done; 0 ends it with the first read."""

    def __init__(self, sim: AzureSim) -> None:
        assert sim.directory is not None
        self.sim = sim
        self.world = World(sim.directory / "siterecovery")
        self.vaults: dict[str, Vault] = {}
        self.offazure: dict[str, dict[str, SourceMachine]] = {}
        """Machines of each ServerSite, by lower-case site id and name."""
        self.sync_looks = 0

    # time

    @property
    def clock(self) -> Clock:
        return self.world.clock

    def advance(self, *, minutes: float = 0, hours: float = 0) -> None:
        """Put Azure's clock forward; replication makes the points that fall due, with the bytes of now."""
        with self.sim.lock:
            self.clock.ahead += timedelta(minutes=minutes, hours=hours)
            for vault in self.vaults.values():
                for item in list(vault.items()):
                    self.grow(item)

    # seeding

    def vault(self, group: str, name: str, *, classic: bool = False, location: str = "") -> Vault:
        """A vault that exists already. `classic`: made before 2023-03-15 [doc: classic experience, deprecation], so it
        may hold configuration servers."""
        made = Vault(self.sim.subscription, group, name, {
            "location": location or self.sim.region, "sku": {"name": "RS0", "tier": "Standard"}, "properties": {},
        }, classic)  # fmt: skip
        remember(self, made)
        return made

    def unified_setup(
        self, vault: Vault, name: str, ip: str = "10.0.0.4", *, accounts: Sequence[str] = ("root",),
        key_age: timedelta = timedelta(), clock_skew: timedelta = timedelta(),
    ) -> Fabric:  # fmt: skip
        """Play the tutorial's Step 3: Unified Setup registers a configuration server with its process server.

        Raises SetupRefused as the installer does for an old key or a wrong clock, and for a vault that is modernized
        only."""
        if key_age > KEY_LIFE:
            raise SetupRefused("the vault registration key has expired: it is valid for five days")
        if abs(clock_skew) > SETUP_SKEW:
            raise SetupRefused("the time on the server is more than five minutes off")
        if not vault.classic:
            raise SetupRefused("the vault is for the modernized experience only")
        fabric = self._fabric(vault, name, CLASSIC)
        fabric.ip, fabric.servers = ip, [Server(name, ip)]
        fabric.accounts = [Account(one, str(number)) for number, one in enumerate(accounts, 1)]
        return fabric

    def appliance(
        self, vault: Vault, name: str, ip: str = "10.0.0.5", *, accounts: Sequence[str] = ("root",),
        key_age: timedelta = timedelta(),
    ) -> Fabric:  # fmt: skip
        """A modernized replication appliance registers: an InMageRcm fabric, and a ServerSite for physical machines."""
        if key_age > timedelta(days=1):  # [inf]: the appliance's key is short-lived
            raise SetupRefused("the key of the appliance has expired")
        fabric = self._fabric(vault, name, MODERN)
        fabric.ip, fabric.servers = ip, [Server(name, ip)]
        fabric.accounts = [Account(one, str(uuid.uuid4())) for one in accounts]
        group = f"/subscriptions/{vault.subscription}/resourceGroups/{vault.group}"
        fabric.site_id = f"{group}/providers/Microsoft.OffAzure/ServerSites/{name}site"
        self.offazure[fabric.site_id.lower()] = {}
        return fabric

    def add_to_appliance(self, fabric: Fabric, machine: SourceMachine) -> str:
        """Give a physical server to the appliance (its configuration manager's page); the id of the discovered
        machine."""
        self.offazure[fabric.site_id.lower()][machine.guid] = machine
        return f"{fabric.site_id}/machines/{machine.guid}"

    def add_account(self, fabric: Fabric, name: str) -> Account:
        """An account is added on the configuration server: visible after 15 minutes or a refresh (tutorial)."""
        made = Account(name, str(len(fabric.accounts) + 1), self.clock.now() + ACCOUNT_DELAY)
        fabric.accounts.append(made)
        return made

    def lose_heartbeat(self, fabric: Fabric, *, ago: timedelta = timedelta()) -> None:
        """The configuration server or appliance is not heard any more; `ago`: since when."""
        fabric.heartbeat = self.clock.now() - ago
        for one in fabric.servers:
            one.heartbeat = fabric.heartbeat
            one.suffer("806")

    def restore_heartbeat(self, fabric: Fabric) -> None:
        fabric.heartbeat = None
        for one in fabric.servers:
            one.heartbeat = None
            one.errors = [code for code in one.errors if code != "806"]

    def _fabric(self, vault: Vault, name: str, provider: str) -> Fabric:
        guid = str(uuid.uuid4())
        made = Fabric(fabric_name(guid), name, provider, guid, str(uuid.uuid4()))
        container = Container(f"cloud_{guid}", name)
        made.containers[container.name.lower()] = container
        vault.fabrics[made.name.lower()] = made
        job = self.job(vault, "RegisterDra", "Register the Azure Site Recovery Provider", [], "Server", guid, name)
        self.end(job)
        return made

    # finding

    def find_vault(self, call: Call) -> Vault:
        found = self.vaults.get(
            f"{call.group_id}/providers/Microsoft.RecoveryServices/vaults/{call.args['vault']}".lower()
        )
        if found is None:
            # ARM's own words [common-deployment-errors]
            raise ArmError(
                404, "ResourceNotFound",
                f"The Resource 'Microsoft.RecoveryServices/vaults/{call.args['vault']}' under resource "
                f"group '{call.args['group']}' was not found.",
            )  # fmt: skip
        return found

    def find_fabric(self, call: Call) -> tuple[Vault, Fabric]:
        """By name, or by friendly name [spec example DiscoverProtectableItem]."""
        vault, name = self.find_vault(call), call.args["fabric"].lower()
        for one in vault.fabrics.values():
            if name in (one.name.lower(), one.friendly.lower()):
                return vault, one
        raise not_found("fabric", call.args["fabric"])

    def find_container(self, call: Call) -> tuple[Vault, Fabric, Container]:
        vault, fabric = self.find_fabric(call)
        found = fabric.containers.get(call.args["container"].lower())
        if found is None:
            raise not_found("protection container", call.args["container"])
        return vault, fabric, found

    def find_item(self, call: Call) -> Item:
        _, _, container = self.find_container(call)
        found = container.items.get(call.args["item"].lower())
        if found is None:
            raise not_found("replication protected item", call.args["item"])
        return found

    def item_of(self, item_id: str) -> Item | None:
        """The item with this ARM id, in whatever vault."""
        return next(
            (one for vault in self.vaults.values() for one in vault.items() if one.id.lower() == item_id.lower()), None
        )

    # replication

    def look(self, item: Item) -> None:
        """Somebody reads the item: replication goes on a step, and the points that are due are made."""
        machine = item.machine
        moving = machine is not None and machine.talks and "78169" not in machine.errors
        if moving and (item.phase is Phase.SYNCING or item.resync):
            item.looks -= 1
            if item.looks <= 0:
                self.synced(item)
        self.grow(item)
        self._tell(item)

    def _tell(self, item: Item) -> None:
        """An event when the health changed [spec example ReplicationEvents_List: VmHealth, "Virtual machine health is
        OK"]."""
        health = rules.replication_health(item, self.clock.now())
        if health != item.health and rules.replicates(item):
            item.health = health
            text = "Virtual machine health is OK" if health == "Normal" else f"Virtual machine health is {health}"
            errors = rules.health_errors(item, self.clock.now())
            severity = "OK" if health == "Normal" else health
            self.event(item.vault, text, "VmHealth", severity, item.friendly, errors, fabric=item.fabric)

    def begin_sync(self, item: Item) -> None:
        item.looks = item.looks_total = self.sync_looks

    def synced(self, item: Item) -> None:
        """Initial replication is done: the Finalize Protection job runs (tutorial), points begin."""
        item.resync, item.looks = False, 0
        if item.phase is Phase.SYNCING:
            item.phase = Phase.PROTECTED
            job = self.job(item.vault, "IrCompletion", "Finalize protection on the recovery virtual machine",
                           [Task("IrCompletionTask", "Finalize protection")], "ProtectionEntity", item.name,
                           item.friendly)  # fmt: skip
            self.end(job)
            now = self.clock.now()
            item.next_crash = now
            item.next_app = now + timedelta(minutes=item.policy.app_minutes) if item.policy.app_minutes else None

    def grow(self, item: Item) -> None:
        """Make the recovery points that are due, and let the old ones go."""
        machine, now = item.machine, self.clock.now()
        if (
            not rules.replicates(item)
            or item.phase is not Phase.PROTECTED
            or machine is None
            or not machine.talks
            or item.resync
        ):
            self._age(item)
            return
        item.last_data, shared = now, None
        while item.next_crash is not None and item.next_crash <= now:
            shared = shared or self.world.snapshot(machine, item.disk_ids)
            item.points.append(Point(str(uuid.uuid4()), item.next_crash, "CrashConsistent", shared.take()))
            item.next_crash += timedelta(minutes=item.policy.crash_minutes)
        while item.next_app is not None and item.next_app <= now:
            if machine.app_consistent:
                shared = shared or self.world.snapshot(machine, item.disk_ids)
                item.points.append(Point(str(uuid.uuid4()), item.next_app, "ApplicationConsistent", shared.take()))
            item.next_app += timedelta(minutes=item.policy.app_minutes)
        self._age(item)

    def latest(self, item: Item) -> Point:
        """Process what has arrived and make a point of it: what "latest" fails over to."""
        if item.machine is not None and item.machine.talks:
            snapshot = self.world.snapshot(item.machine, item.disk_ids)
            item.points.append(Point(str(uuid.uuid4()), self.clock.now(), "CrashConsistent", snapshot.take()))
        return max(item.points, key=lambda one: one.time)

    def _age(self, item: Item) -> None:
        """Points beyond the retention go; the newest stays while replication goes on. A switched item goes with its
        last
        point [doc: "Move from classic to modernized"]."""
        if not rules.replicates(item) and not (item.switched and item.phase is Phase.PROTECTED):
            return
        oldest = self.clock.now() - timedelta(minutes=item.policy.retention_minutes)
        kept = item.points if item.switched else item.points[:-1]
        self.drop_points(item, [one for one in kept if one.time < oldest])
        if item.switched and not item.points:
            self.forget(item)

    def forget(self, item: Item) -> None:
        """The machine is not protected any more."""
        self.drop_points(item, list(item.points))
        item.container.items.pop(item.name.lower(), None)
        found = item.container.protectables.get(last(item.protectable_id))
        if found is not None:
            found.item_id = ""
        item.busy = False

    def drop_points(self, item: Item, gone: Sequence[Point]) -> None:
        for one in gone:
            one.snapshot.release()
        item.points = [one for one in item.points if one not in gone]
