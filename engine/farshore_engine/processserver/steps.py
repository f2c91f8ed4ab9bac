"""What to do next for a machine. Pure: assignment and local knowledge go in, one step and its reason come out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from farshore_engine.contract.assignment import Desired, InstallMode, MachineAssignment
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import State
from farshore_engine.processserver.missing import REASON, REMEDY, explain
from farshore_engine.wire.messages import SyncMode

REINSTALL_AFTER = timedelta(minutes=10)  # an agent that stays away so long is looked for over SSH
RETRY_WAIT = (timedelta(seconds=5), timedelta(minutes=2))  # first and longest pause after a failure that time heals
RETRY_STOP = (timedelta(seconds=30), timedelta(minutes=10))  # the same, when a person must act


class Step(StrEnum):
    """One effect of the supervisor, or none."""

    OPEN = "open"  # vault, chain and spool
    CLOSE = "close"
    PREFLIGHT = "preflight"
    INSTALL = "install"
    UNINSTALL = "uninstall"
    NONE = "none"


@dataclass(frozen=True)
class Failure:
    """A step that failed: it is repeated at `retry_at`, or as soon as the assignment changes."""

    step: Step
    fault: Fault
    retry_at: datetime
    count: int = 1

    @classmethod
    def after(cls, earlier: Failure | None, step: Step, fault: Fault, now: datetime) -> Failure:
        """Return the failure with a pause that doubles while the same step keeps failing."""
        count = earlier.count + 1 if earlier is not None and earlier.step is step else 1
        first, longest = RETRY_STOP if isinstance(fault, StopFault) else RETRY_WAIT
        return cls(step, fault, now + min(first * 2 ** min(count - 1, 16), longest), count)


@dataclass(frozen=True)
class LocalState:
    """What the supervisor knows.

    `installed`: the agent was installed as the assignment wants it now (certificate, address, bundle);
    `certified`: the assignment carries a certificate that fits our key; `preflighted`: the checks of this assignment
    passed; `away_since`: since when no agent is connected, None while one is; `missing`: disks that should be there.
    """

    opened: bool = False
    certified: bool = False
    preflighted: bool = False
    installed: bool = False
    uninstalled: bool = False
    away_since: datetime | None = None
    mode: SyncMode | None = None
    synced: bool = False
    failure: Failure | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """The step to take now, and what to show while it is taken or nothing is to be done."""

    step: Step
    state: State
    message: str = ""
    reason: str = ""
    remedy: str = ""  # what a person should do; empty when nothing is to be done


def next_step(assignment: MachineAssignment, local: LocalState, now: datetime) -> Decision:
    """Return what to do now and what to report."""
    if assignment.desired in (Desired.STOP, Desired.UNINSTALL):
        return _ending(assignment, local, now)
    if local.failure is not None and now < local.failure.retry_at:
        return _waiting_for_retry(local.failure, local)
    if not local.opened:
        return Decision(Step.OPEN, State.PREFLIGHT, "opening the vault")
    if local.away_since is None:
        return _connected(assignment, local)
    if assignment.source.install is InstallMode.PUSH:
        return _pushing(assignment, local, now)
    if not local.certified:
        return Decision(
            Step.NONE, State.WAITING_FOR_AGENT, "waiting for the operator to sign the machine's certificate"
        )
    return Decision(
        Step.NONE, State.WAITING_FOR_AGENT, "install the agent's bundle by hand and enrol it with its one-time token"
    )


def _ending(assignment: MachineAssignment, local: LocalState, now: datetime) -> Decision:
    state = State.STOPPED if assignment.desired is Desired.STOP else State.REPLICATING
    if local.opened:
        return Decision(Step.CLOSE, state, "replication ends")
    if assignment.desired is Desired.STOP:
        return Decision(Step.NONE, State.STOPPED, "failed over: no further recovery point is taken here")
    if local.uninstalled:
        return Decision(Step.NONE, State.UNINSTALLED, "the agent is removed")
    if assignment.source.install is InstallMode.MANUAL:
        return Decision(Step.NONE, State.UNINSTALLED, "remove the agent by hand: it was installed by hand")
    if local.failure is not None and now < local.failure.retry_at:
        return _waiting_for_retry(local.failure, local)
    return Decision(Step.UNINSTALL, State.STOPPED, "removing the agent")


def _pushing(assignment: MachineAssignment, local: LocalState, now: datetime) -> Decision:
    away = local.away_since
    if local.installed and away is not None and now - away < REINSTALL_AFTER:
        return Decision(Step.NONE, State.WAITING_FOR_AGENT, "the agent has not dialled in yet, or is away")
    if not local.preflighted:
        return Decision(Step.PREFLIGHT, State.PREFLIGHT, "checking the machine")
    if not local.certified:
        return Decision(Step.NONE, State.PREFLIGHT, "waiting for the operator to sign the machine's certificate")
    return Decision(Step.INSTALL, State.INSTALLING, "pushing the agent")


def _connected(assignment: MachineAssignment, local: LocalState) -> Decision:
    if assignment.source.install is InstallMode.PUSH and not local.installed and local.certified:
        step = Step.INSTALL if local.preflighted else Step.PREFLIGHT  # new certificate, address or bundle
    else:
        step = Step.NONE
    if assignment.desired is Desired.PAUSE:
        return Decision(step, State.PAUSED, "paused: changes are tracked and not sent")
    if local.missing:
        return Decision(step, State.BLOCKED, explain(local.missing), REASON, REMEDY)
    if local.synced or local.mode is SyncMode.DELTA:
        return Decision(step, State.REPLICATING)
    if local.mode is SyncMode.RESYNC:
        return Decision(step, State.RESYNC, "comparing digests after a gap in tracking")
    return Decision(step, State.INITIAL, "the first copy is under way")


def _waiting_for_retry(failure: Failure, local: LocalState) -> Decision:
    message = f"{failure.fault.message}; tried again at {failure.retry_at:%H:%M:%S} UTC"
    if isinstance(failure.fault, StopFault) and local.away_since is not None:
        return Decision(Step.NONE, State.BLOCKED, message)
    states = {Step.PREFLIGHT: State.PREFLIGHT, Step.INSTALL: State.INSTALLING, Step.OPEN: State.PREFLIGHT}
    if local.away_since is None:
        return Decision(Step.NONE, State.REPLICATING if local.synced else State.INITIAL, message)
    return Decision(Step.NONE, states.get(failure.step, State.WAITING_FOR_AGENT), message)
