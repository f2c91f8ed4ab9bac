"""The tutorial for one machine: discovered, enabled, followed until it has points, disabled at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.replication import ReplicationReport, State
from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.calls import (
    DisableProtection,
    DiscoverMachine,
    EnableProtection,
    RestartJob,
)
from farshore_operator.engines.siterecovery.decide import switch
from farshore_operator.engines.siterecovery.decide.report import Telling, disabling, of_item
from farshore_operator.engines.siterecovery.decide.verdict import Verdict, resting, told, under_way
from farshore_operator.engines.siterecovery.facts import (
    Allowed,
    Appliance,
    Item,
    Job,
    Points,
    PolicyFacts,
    Problem,
    Protectable,
    Scenario,
)
from farshore_operator.engines.siterecovery.wishes import MachineWish, VaultWish

NOT_HERE = "the vault is not ready for machines: see the conditions of RecoveryVault {vault}"


@dataclass(frozen=True)
class MachineView:
    """A machine as it was read. `job` is that of the recorded operation; `policy` is None until it is there; `away`
    says that the item is in the vault that the machine moves from."""

    wish: MachineWish
    vault: VaultWish
    appliance: Appliance | None = None
    policy: PolicyFacts | None = None
    item: Item | None = None
    protectable: Protectable | None = None
    job: Job | None = None
    points: Points = field(default_factory=Points)
    away: bool = False


def decide(view: MachineView, now: datetime) -> Verdict[ReplicationReport]:
    """Return the next call for a machine, and its report."""
    tell = Telling(view.wish, naming.driver(view.vault.name), now)
    recorded = view.wish.report.operation if view.wish.report is not None else None
    kept = recorded if under_way(recorded, view.job, now) or resting(recorded, view.job, now) else None
    tell = tell.keeping(kept)
    failed = view.job if kept is not None and view.job is not None and view.job.failed else None
    if view.wish.desired is Desired.UNINSTALL:
        return _leave(view, tell, busy=kept is not None and failed is None, failed=failed)
    if view.item is not None and view.away:
        return _move(view, view.item, tell, kept)
    if view.item is not None:
        again = _again(view, recorded) if kept is None else None
        return Verdict(of_item(tell, view.item, view.points, failed), again)
    if view.wish.desired is Desired.STOP:
        return Verdict(tell.say(State.STOPPED, "it is not replicated"))
    if failed is not None:
        return Verdict(_failed(tell, failed))
    if kept is not None:
        state = State.INSTALLING if kept.call == EnableProtection.__name__ else State.PREFLIGHT
        return Verdict(tell.say(state, f"{kept.call} is under way at Site Recovery (job {kept.job or 'unknown'})"))
    return _enable(view, tell)


def _move(view: MachineView, item: Item, tell: Telling, kept: Operation | None) -> Verdict[ReplicationReport]:
    """Tell of the old item, and let Site Recovery move the machine when it can."""
    old = view.wish.report
    check, call = switch.step(item, view.appliance, view.vault.settings.id, kept, view.job, old)
    report = of_item(tell, item, view.points, None)
    report = report.model_copy(update={"checks": (check, *report.checks)})
    if item.switched_to:  # the list of the new vault is behind, or somebody has disabled the protection there
        text = f"{check.message}, which vault {view.vault.settings.vault} does not show"
        waits = {"state": State.WAITING, "message": text, "reason": "Moved"}
        report = report.model_copy(update={**waits, "remedy": "If it stays so, look at the vault in the portal"})
    return Verdict(report, call if view.wish.desired is Desired.REPLICATE else None)


def _enable(view: MachineView, tell: Telling) -> Verdict[ReplicationReport]:
    wish, at = view.wish, view.appliance
    if at is None:
        return Verdict(tell.say(State.WAITING, NOT_HERE.format(vault=view.vault.name), reason="VaultNotReady"))
    if view.protectable is None:
        return _discover(view, tell, at)
    if view.protectable.problems:
        first = view.protectable.problems[0]
        return Verdict(tell.blocked("NotReady", f"{wish.name} cannot be protected: {first.told}", first.remedy))
    lacking = _lacking(view, at)
    if lacking is not None:
        return Verdict(tell.blocked(lacking.code, lacking.message, lacking.remedy))
    if view.policy is None or at.container not in view.policy.mapped:
        return Verdict(tell.say(State.WAITING, "its policy is being made and mapped", reason="PreparingPolicy"))
    call = EnableProtection(
        naming.item(wish.machine_id),
        at,
        view.protectable,
        view.policy.id,
        _process_server(view, at),
        _account(view, at),
        view.vault.log_storage,
        wish.target,
    )
    return Verdict(tell.say(State.INSTALLING, "the Mobility service is about to be installed"), call)


def _discover(view: MachineView, tell: Telling, at: Appliance) -> Verdict[ReplicationReport]:
    wish = view.wish
    if at.scenario is Scenario.CLASSIC:
        call = DiscoverMachine(at, wish.name, wish.address, wish.windows)
        return Verdict(tell.say(State.PREFLIGHT, f"{at.friendly} is told of {wish.address}"), call)
    text = f"appliance {at.friendly} has not discovered a machine with address {wish.address}"
    remedy = "Add the machine, with its credentials, to the appliance (Manage physical servers); it is found then"
    return Verdict(tell.say(State.WAITING, text, reason="NotDiscovered", remedy=remedy))


def _lacking(view: MachineView, at: Appliance) -> Problem | None:
    """Return what the manifests do not say and Site Recovery wants to know."""
    if not view.vault.log_storage:
        text = f"RecoveryVault {view.vault.name} names no storage account through which machines replicate"
        return Problem("NoCacheStorage", text, remedy="Set spec.azure.cacheStorageAccount")
    if not view.wish.target.resource_group:
        text = "it is not known in which resource group the machine is made"
        return Problem("NoResourceGroup", text, remedy="Make the target site one of provider azure")
    if view.wish.target.availability_set and view.wish.target.zone:
        return Problem("SetAndZone", "an availability set and a zone exclude each other", remedy="Name one of them")
    if not _process_server(view, at):
        text = f"{at.friendly} has no process server {view.vault.process_server}".rstrip()
        return Problem("NoProcessServer", text, remedy="Correct spec.azure.siteRecovery.processServer, or register one")
    if at.scenario is Scenario.CLASSIC and not _account(view, at):
        known = ", ".join(sorted(at.accounts)) or "none"
        wanted = view.vault.windows_account if view.wish.windows else view.vault.linux_account
        text = (
            f"{at.friendly} has no account {wanted or 'that is the only one'} for push installation (it has: {known})"
        )
        kind = "windowsAccount" if view.wish.windows else "linuxAccount"
        remedy = f"Add it there, or correct spec.azure.siteRecovery.{kind}; it shows after 15 minutes or a refresh"
        return Problem("NoAccount", text, remedy=remedy)
    return None


def _account(view: MachineView, at: Appliance) -> str:
    wanted = view.vault.windows_account if view.wish.windows else view.vault.linux_account
    if wanted:
        return at.accounts.get(wanted, "")
    return next(iter(at.accounts.values())) if len(at.accounts) == 1 else ""


def _process_server(view: MachineView, at: Appliance) -> str:
    """Return the id of the process server: the one that is named, else the first that is well."""
    wanted = view.vault.process_server.lower()
    servers = [one for one in at.process_servers if not wanted or one.name.lower() == wanted]
    well = [one for one in servers if one.health != "Critical"]
    return next((one.id for one in (well or servers)), "")


def _again(view: MachineView, recorded: Operation | None) -> RestartJob | None:
    """Return the call that lets a failed enabling go on: Site Recovery keeps the item, and takes no second one."""
    job = view.job
    if recorded is None or job is None or not job.failed or "Restart" not in job.allowed:
        return None
    return RestartJob(job.id, recorded.call, recorded.subject)


def _failed(tell: Telling, failed: Job) -> ReplicationReport:
    why = told(failed)
    return tell.blocked(f"Failed{why.code}", why.message, f"{why.remedy}. It is tried again after a while")


def _leave(view: MachineView, tell: Telling, *, busy: bool, failed: Job | None) -> Verdict[ReplicationReport]:
    """Disable the protection, and say so once nothing of it is left."""
    if view.item is None:
        known = busy and view.job is not None
        return Verdict(
            tell.say(State.WAITING, "what was begun for it is waited for")
            if known
            else tell.say(State.UNINSTALLED, "Site Recovery does not protect it")
        )
    if failed is not None:
        return Verdict(_failed(tell, failed))
    if busy or (view.item.job and view.item.drill != "WaitingForCompletion"):
        return Verdict(disabling(tell, view.item, "it waits for what Site Recovery does with it"))
    if Allowed.DISABLE not in view.item.allowed:
        allowed = ", ".join(sorted(view.item.allowed)) or "nothing"
        return Verdict(disabling(tell, view.item, f"Site Recovery allows {allowed} now, not to disable protection"))
    return Verdict(disabling(tell, view.item, "its protection is being disabled"), DisableProtection(view.item))
