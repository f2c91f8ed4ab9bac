"""What a failback needs: a machine that is replicated from the recovery site, and somebody at home to write it back."""

from __future__ import annotations

from farshore_operator.api.failoverplan import Mode
from farshore_operator.api.failoverrun import RunKind, RunMember
from farshore_operator.api.protectedvm import Place
from farshore_operator.decide import lifecycle, machineruns
from farshore_operator.decide.cloudtarget import defaults_of
from farshore_operator.decide.naming import machine_id
from farshore_operator.decide.observedvm import ObservedVM, ServerFacts
from farshore_operator.decide.references import Problem
from farshore_operator.decide.runspec import Chosen


def hindrance(observed: ObservedVM, mode: Mode) -> Problem | None:
    """Return what makes the failback of a machine impossible now, None if nothing does."""
    found, name = machineruns.life(observed), observed.vm.metadata.name
    place, report = found.standing.place, observed.report
    if place is Place.FAILED_OVER:
        text = f"{name} was failed over by run {found.standing.run}, which is not committed: to go back without a "
        return Problem("NotCommitted", f"{text}failback set spec.abort to it, else commit it and reprotect first")
    point = report.last_point if report is not None else None
    if place is not Place.REVERSED or point is None or point.epoch <= machineruns.fenced(observed):
        text = f"{name} is not yet replicated from the recovery site, and what it has written there would be lost"
        return Problem("NotProtectedReverse", f"{text}: set spec.reprotect, and wait for phase ProtectedReverse")
    if home_server(observed) is None:
        site = observed.vm.spec.source.site_ref.name
        return Problem("NoHomeProcessServer", f"no process server of site {site}, where {name} goes, is connected")
    assignment = observed.vm.status.assignment
    server = observed.server(assignment.process_server) if assignment else None
    if mode is Mode.PLANNED and (server is None or not server.connected):
        which = assignment.process_server if assignment else "that serves it"
        text = f"process server {which} of {name} is not connected, so its last change cannot be taken along"
        return Problem("ProcessServerNotConnected", f"{text}: start it, or use mode unplanned")
    return None


def home_server(observed: ObservedVM) -> ServerFacts | None:
    """Return the process server that writes the machine back: the one that the manifest names, else the one that it
    left, else any of its site."""
    site = observed.vm.spec.source.site_ref.name
    able = [s for s in observed.servers if s.site == site and s.registered and s.connected and not s.deleting]
    ref = observed.vm.spec.process_server_ref
    wanted = ref.name if ref is not None else _left(observed)
    named = next((server for server in able if server.name == wanted), None)
    return named or min(able, key=lambda server: (server.load, server.name), default=None)


def _left(observed: ObservedVM) -> str:
    for run in reversed(observed.runs):
        member = lifecycle.member_of(run, observed.vm.metadata.name)
        if run.spec.kind is RunKind.FAILOVER and member is not None and member.source_process_server:
            return member.source_process_server
    return ""


def member(chosen: Chosen) -> RunMember:
    """Return a machine's part in a failback: it leaves the recovery site and is recovered where it came from."""
    observed = chosen.observed
    vm, meta = observed.vm, observed.vm.metadata
    where, home, assignment = machineruns.recovered(observed), home_server(observed), vm.status.assignment
    home_name, site = vm.spec.source.machine or meta.name, observed.source_site
    target = defaults_of(site) if site is not None else None
    return RunMember(
        protected_vm=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        machine_id=machine_id(meta.namespace, meta.name),
        vault=vm.spec.vault_ref.name,
        group=chosen.group,
        source_site=where.site if where else vm.spec.target.site_ref.name,
        target_site=vm.spec.source.site_ref.name,
        source_process_server=assignment.process_server if assignment else None,
        process_server=home.name if home else "",
        epoch=max(assignment.epoch if assignment else 0, machineruns.fenced(observed)),
        source_machine=where.machine if where else home_name,
        target_name=home_name,
        provider=site.spec.provider.value if site is not None and target is not None else None,
        target=target,
    )
