"""Which process server serves a machine, and in which epoch. An assignment is kept as long as it can be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farshore_engine.contract.assignment import Desired, Direction
from farshore_operator.api.protectedvm import Assignment
from farshore_operator.decide import machineruns
from farshore_operator.decide.consistencygroup import conflict, shared_server
from farshore_operator.decide.observedvm import ObservedVM, ServerFacts


@dataclass(frozen=True)
class Placement:
    """The assignment, None if there can be none yet; `reason` and `message` say what is in the way of one."""

    assignment: Assignment | None
    reason: str = ""
    message: str = ""


def place(observed: ObservedVM, desired: Desired, now: datetime) -> Placement:
    """Decide who serves the machine.

    A machine that is stopped or about to go keeps its server. An epoch grows with every change of server or direction,
    and beyond every epoch that is known to be in the chain: a rebuilt cluster starts to count at one again.
    """
    current = observed.vm.status.assignment
    if desired in (Desired.STOP, Desired.UNINSTALL):
        return Placement(current)
    if machineruns.direction(observed) is Direction.REVERSE:
        return _reverse(observed)
    joint = "" if _conflict(observed) else shared_server(observed.group, observed.vm.metadata.name)
    wanted = _explicit(observed)
    if wanted is not None and wanted.message:
        return Placement(current, wanted.reason, wanted.message)
    if current is not None and _stays(observed, current, now, joint):
        return Placement(_raised(observed, current))
    chosen = _choose(observed, joint)
    if chosen is None and joint and current is not None and current.process_server != joint:
        text = f"its consistency group is served by ProcessServer {joint}, which is not connected: it follows it there"
        return Placement(current, "ProcessServerNotConnected", text)
    if chosen is None:
        reason, message = nobody(observed)
        return Placement(current, reason, message)
    if current is not None and chosen.name == current.process_server:
        return Placement(_raised(observed, current))
    return Placement(_anew(observed, chosen.name))


def _reverse(observed: ObservedVM) -> Placement:
    """Let the process server that runs the recovered machine replicate it back; no other reaches it."""
    current, where = observed.vm.status.assignment, machineruns.recovered(observed)
    if where is None:
        return Placement(current, "RecoveredMachineUnknown", "it is not known where the recovered machine runs")
    server = observed.server(where.process_server or "")
    able = [s for s in observed.servers if s.site == where.site and s.registered and s.connected and not s.deleting]
    if server is None and able:
        server = min(able, key=lambda one: (one.load, one.name))
    if server is None:
        text = f"site {where.site} has no process server that could replicate the recovered machine: start one"
        return Placement(current, "NoProcessServer", text)
    if current is not None and current.direction is Direction.REVERSE and current.process_server == server.name:
        return Placement(_raised(observed, current))
    return Placement(_anew(observed, server.name))


def _explicit(observed: ObservedVM) -> Placement | None:
    """Check the process server that the manifest names."""
    ref, site = observed.vm.spec.process_server_ref, observed.vm.spec.source.site_ref.name
    if ref is None:
        return None
    server = observed.server(ref.name)
    namespace = observed.vm.metadata.namespace
    if server is None:
        text = f"spec.processServerRef names ProcessServer {namespace}/{ref.name}, which does not exist"
        return Placement(None, "ProcessServerNotFound", text)
    if server.site != site:
        text = (
            f"spec.processServerRef names ProcessServer {ref.name} of site {server.site}, but the machine runs at site "
            f"{site}: name one of that site, or none"
        )
        return Placement(None, "ProcessServerOfOtherSite", text)
    return Placement(None)


def _conflict(observed: ObservedVM) -> bool:
    group = observed.vm.spec.consistency_group
    return group is not None and conflict(group, observed.group) is not None


def _stays(observed: ObservedVM, current: Assignment, now: datetime, joint: str) -> bool:
    ref = observed.vm.spec.process_server_ref
    if current.direction is Direction.REVERSE or (ref is not None and ref.name != current.process_server):
        return False
    if joint and joint != current.process_server:
        return False
    server = observed.server(current.process_server)
    if server is None or server.deleting or server.site != observed.vm.spec.source.site_ref.name:
        return False
    if server.connected or ref is not None or joint:
        return True  # a machine that follows its group leaves with it
    return server.heartbeat is None or now - server.heartbeat < observed.timing.reassign_after


def _choose(observed: ObservedVM, joint: str) -> ServerFacts | None:
    ref, site = observed.vm.spec.process_server_ref, observed.vm.spec.source.site_ref.name
    able = [s for s in observed.servers if s.site == site and s.registered and s.connected and not s.deleting]
    if ref is not None:
        able = [server for server in able if server.name == ref.name]
    elif joint:
        able = [server for server in able if server.name == joint]
    return min(able, key=lambda server: (server.load, server.name), default=None)


def nobody(observed: ObservedVM) -> tuple[str, str]:
    """Say why no process server of the machine's site serves it, and what to do: reason and sentence."""
    site = observed.vm.spec.source.site_ref.name
    here = [server for server in observed.servers if server.site == site]
    ref = observed.vm.spec.process_server_ref
    if ref is not None:
        return "ProcessServerNotConnected", f"ProcessServer {ref.name} is not registered or not connected: start it"
    if not here:
        return (
            "NoProcessServer",
            f"site {site} has no process server: run `farshore site registration-key {site}` and start one",
        )
    names = ", ".join(server.name for server in here)
    return (
        "ProcessServerNotConnected",
        f"no process server of site {site} is registered and connected ({names}): start one",
    )


def _raised(observed: ObservedVM, current: Assignment) -> Assignment:
    """Pass the epoch of the chain's head, which somebody else wrote, and every epoch that a run has written."""
    report = observed.report
    overtaken = report is not None and report.epoch == current.epoch and report.vault_epoch > current.epoch
    if overtaken or current.epoch <= machineruns.fenced(observed):
        return _anew(observed, current.process_server)
    return current


def _anew(observed: ObservedVM, server: str) -> Assignment:
    """Assign the machine in an epoch above everything that is known.

    The chain goes on at the point that the machine was made from, until its first own point has followed that.
    """
    standing = machineruns.life(observed).standing
    direction = machineruns.direction(observed)
    turned = standing.returned or direction is Direction.REVERSE
    base = standing.point if turned and not _followed(observed) else None
    return Assignment(process_server=server, epoch=_above(observed), direction=direction, base_point=base)


def _followed(observed: ObservedVM) -> bool:
    """Tell whether a point was made since the machine was turned round, as any server has reported it."""
    report = observed.vm.status.replication
    point = report.last_point if report is not None else None
    return point is not None and point.epoch > machineruns.fenced(observed)


def _above(observed: ObservedVM) -> int:
    current, report = observed.vm.status.assignment, observed.vm.status.replication
    known = (current.epoch if current else 0, report.vault_epoch if report else 0, report.epoch if report else 0)
    return max(*known, machineruns.fenced(observed)) + 1
