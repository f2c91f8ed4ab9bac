"""The calls that decisions may ask for, as plain values. `effects` carries each out; all of them may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.contract.assignment import Policy
from farshore_operator.engines.siterecovery.facts import Appliance, Item, PlanGroup, Protectable
from farshore_operator.engines.siterecovery.target import TargetWish


@dataclass(frozen=True)
class Call:
    """A call that changes something. `subject` is what it is about."""

    @property
    def name(self) -> str:
        """What is recorded of it: its word."""
        return type(self).__name__

    @property
    def subject(self) -> str:
        """What it is about."""
        return ""


@dataclass(frozen=True)
class CreateVault(Call):
    """Make the Recovery Services vault in its region."""


@dataclass(frozen=True)
class RefreshServer(Call):
    """Let a configuration server or appliance tell its news now."""

    appliance: Appliance

    @property
    def subject(self) -> str:
        """The server's name."""
        return self.appliance.name


@dataclass(frozen=True)
class CreatePolicy(Call):
    """Make a replication policy."""

    policy: str
    wished: Policy
    appliance: Appliance

    @property
    def subject(self) -> str:
        """The policy's name."""
        return self.policy


@dataclass(frozen=True)
class MapContainer(Call):
    """Associate a policy with the container of a server."""

    policy: str
    policy_id: str
    appliance: Appliance

    @property
    def subject(self) -> str:
        """The policy's name."""
        return self.policy


@dataclass(frozen=True)
class DiscoverMachine(Call):
    """Tell a configuration server of a physical machine."""

    appliance: Appliance
    machine: str
    address: str
    windows: bool

    @property
    def subject(self) -> str:
        """The machine's address."""
        return self.address


@dataclass(frozen=True)
class EnableProtection(Call):
    """Begin to replicate a machine."""

    item: str
    appliance: Appliance
    protectable: Protectable
    policy_id: str
    process_server: str
    account: str
    log_storage: str
    target: TargetWish

    @property
    def subject(self) -> str:
        """The item's name."""
        return self.item


@dataclass(frozen=True)
class RestartJob(Call):
    """Let a job that failed go on; `of` is the call that began it."""

    job: str
    of: str
    about: str

    @property
    def name(self) -> str:
        """The call that goes on."""
        return self.of

    @property
    def subject(self) -> str:
        """What that call is about."""
        return self.about


@dataclass(frozen=True)
class OfItem(Call):
    """A call about a replicated item."""

    item: Item

    @property
    def subject(self) -> str:
        """The item's name."""
        return self.item.name


@dataclass(frozen=True)
class DisableProtection(OfItem):
    """Stop to replicate a machine, and delete its recovery points."""


@dataclass(frozen=True)
class TestFailover(OfItem):
    """Make a test machine in a network; `point` is a resource id, empty for the latest."""

    __test__ = False  # no test, whatever its name looks like

    point: str
    network: str


@dataclass(frozen=True)
class CleanUpTest(OfItem):
    """Remove the test machine."""

    notes: str


@dataclass(frozen=True)
class Failover(OfItem):
    """Make the machine in Azure; `point` is a resource id, empty for the latest."""

    point: str
    shutdown: bool


@dataclass(frozen=True)
class ChangePoint(OfItem):
    """Make the failed-over machine anew from another point."""

    point: str


@dataclass(frozen=True)
class Commit(OfItem):
    """Declare the failover final."""


@dataclass(frozen=True)
class SwitchProvider(OfItem):
    """Move a machine from the classic experience to an appliance of another vault, whose resource id is `vault`."""

    vault: str
    appliance: Appliance


@dataclass(frozen=True)
class OfPlan(Call):
    """A call about a recovery plan."""

    plan: str

    @property
    def subject(self) -> str:
        """The plan's name in the vault."""
        return self.plan


@dataclass(frozen=True)
class CreatePlan(OfPlan):
    """Make a recovery plan; `fabric` is the id of the server that its machines replicate from."""

    fabric: str
    groups: tuple[PlanGroup, ...]


@dataclass(frozen=True)
class UpdatePlan(OfPlan):
    """Give a recovery plan these groups."""

    groups: tuple[PlanGroup, ...]


@dataclass(frozen=True)
class DeletePlan(OfPlan):
    """Delete a recovery plan; its machines stay as they are."""
