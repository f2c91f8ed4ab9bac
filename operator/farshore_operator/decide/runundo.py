"""What a run that ended badly, or was undone, has done to its machines: in words, so that nobody must guess."""

from __future__ import annotations

from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverplan import Mode
from farshore_operator.api.failoverrun import (
    FailoverRunSpec,
    RunKind,
    RunMember,
    RunPhase,
    StepPhase,
)
from farshore_operator.api.site import Provider
from farshore_operator.decide import lifecycle
from farshore_operator.decide.runsteps import StepName

_DONE = {
    StepName.FINAL_POINT: "it took its last recovery point and was switched off at site {source}",
    StepName.SHUTDOWN_SOURCE: "it was switched off at site {source}",
    StepName.FENCE: "its chain was fenced",
    StepName.HYDRATE: "its disks were written at site {target}",
    StepName.WRITE_BACK: "its disks were written at site {target}",
    StepName.UPLOAD_DISKS: "its disks were made in Azure at site {target}",
    StepName.START_MACHINE: "it was started at site {target} as {name}",
    StepName.START_SOURCE: "it was started at site {source}",
    StepName.STOP_RECOVERED: "it was switched off at site {target}",
    StepName.REMOVE_RECOVERED: "the recovered machine {name} was removed with its disks",
}
_MOVES = (RunKind.FAILOVER, RunKind.FAILBACK)


def account(run: FailoverRun) -> str | None:
    """Say what was done, what was not, and what can or cannot be undone; None while there is nothing to say."""
    spec, status = run.spec, run.status
    if status.phase is RunPhase.SUCCEEDED and spec.kind is RunKind.ABORT:
        return " ".join(_undone(spec, member) for member in spec.members) or None
    if status.phase is not RunPhase.FAILED:
        return None
    told = [_half(run, member) for member in spec.members]
    return " ".join(text for text in told if text) or "Nothing was done to any machine."


def _half(run: FailoverRun, member: RunMember) -> str:
    """Tell of one machine of a run that failed."""
    name, spec = member.protected_vm, run.spec
    phases = {step.name: step.phase for step in run.status.steps if step.member == name}
    words = {"source": member.source_site, "target": member.target_site, "name": member.target_name}
    done = [text.format(**words) for step, text in _DONE.items() if phases.get(step.value) is StepPhase.SUCCEEDED]
    unsure = lifecycle.may_be_stopped(run, member)
    if not done and not unsure:
        return ""
    text = f"{name}: {', '.join(done) or f'nothing was done at site {member.target_site}'}."
    if spec.kind in _MOVES and lifecycle.was_stopped(run, member):
        lost = "" if spec.mode is Mode.PLANNED else "; whatever it wrote after its last point is on its own disks still"
        again = f"and it is started again at site {member.source_site}"
        undo = f"That can be undone: set spec.abort to {run.metadata.name}, {again}"
        return f"{text} {undo}{lost}.{_left_apart(member) if spec.kind is RunKind.FAILBACK else ''}"
    if unsure:
        undo = f"if it is off, set spec.abort to {run.metadata.name}, and it is started again"
        return f"{text} Whether it was switched off at site {member.source_site} is not known: {undo}."
    if spec.kind in _MOVES:
        return f"{text} It was not stopped at site {member.source_site}, where replication goes on if it still runs."
    if spec.kind is RunKind.ABORT and phases.get(StepName.REMOVE_RECOVERED.value) is StepPhase.SUCCEEDED:
        text += " That cannot be undone, but its recovery points are kept: it can be failed over again."
    return text


def _left_apart(member: RunMember) -> str:
    """Tell what becomes of a machine that a Hub may have in parts: nobody starts it on disks that are half written."""
    if member.provider != Provider.AZURE_STACK_HUB:
        return ""
    return (
        f" At site {member.target_site} machine {member.target_name} is off, or taken apart with its disks and "
        "interfaces kept, its data disks and that of the system attached to the process server's machine: the next "
        "failback goes on from there. To have it without one, detach the disks and make it again from them; the tags "
        "farshore-definition-N of its interface hold its definition."
    )


def _undone(spec: FailoverRunSpec, member: RunMember) -> str:
    name, home = member.protected_vm, member.source_site
    if spec.undoes is RunKind.FAILBACK:
        text = f"{name} runs at site {home} again; what it wrote at site {member.target_site} meanwhile is left behind."
        return f"{text}{_left_apart(member)}"
    if member.stopped and spec.mode is Mode.PLANNED:
        text = f"{name} runs at site {home} again as it was switched off, without loss"
        return f"{text}; what the recovered machine wrote is gone."
    if member.stopped:
        return f"{name} runs at site {home} again on its own disks; what the recovered machine wrote is gone."
    return f"{name} was never stopped at site {home} and answers there; what the recovered machine wrote is gone."
