"""What the vault knows of a machine that this control plane knows nothing of: read first, then acted upon.

A fresh control plane, or one that has lost the record of a run, asks a process server for the machine's journal. Until
that is answered nothing moves or replicates the machine. Then the runs are made again, with the same names and inputs,
and go on where they were.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from farshore_engine.contract.tasks import JournalledRun, TaskInput, TaskKind, TaskPhase
from farshore_operator.api import FailoverRun, Task
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.protectedvm import Place, Standing
from farshore_operator.api.task import TaskSpec
from farshore_operator.decide.actions import CreateOwned, DeleteOwned
from farshore_operator.decide.decision import Action
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import MACHINE_LABEL, TAKEN_UP_ANNOTATION, bounded, label, machine_id
from farshore_operator.decide.observedvm import ObservedVM, ServerFacts
from farshore_operator.decide.runinputs import kind_of, spec_of
from farshore_operator.decide.runsteps import StepName

FINAL = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
AGAIN = timedelta(minutes=1)
"""How long after a journal could not be read it is tried again."""
WINDOW = 50
"""How many of a machine's runs are taken up again, the newest: more than a circle has."""


def task_name(observed: ObservedVM) -> str:
    """Return the name of the task that reads the journal; another object of the same name reads it anew."""
    meta = observed.vm.metadata
    return bounded(f"{meta.name}-history-{meta.uid[:8]}")


def wanted(observed: ObservedVM) -> bool:
    """Tell whether this control plane knows less than the vault may know."""
    status = observed.vm.status
    if status.active_site is None and status.assignment is None:
        return True
    if any(awaited(run) for run in observed.runs):
        return True
    known = {run.metadata.name for run in observed.runs}
    lost = _asked(observed) - known
    # What the vault does not know either cannot be waited for.
    told = {run.run for run in observed.history.runs}
    return bool(lost & told if observed.history.answered else lost)


def pending(observed: ObservedVM) -> bool:
    """Tell whether nothing may be done with the machine yet: its journal is not read, or its runs are not back yet."""
    if not wanted(observed):
        return False
    return not (observed.history.answered and not _missing(observed))


def unasked(observed: ObservedVM) -> bool:
    """Tell whether there is nobody who could read the journal."""
    return observed.history.task is None and _reader(observed) is None


def message(observed: ObservedVM) -> str:
    """Say what is waited for while `pending`."""
    task = observed.history.task
    if task is None:
        server = _reader(observed)
        if server is None:
            return "the vault is asked first what it knows of the machine: no process server is connected that could"
        return f"process server {server.name} is about to be asked what the vault knows of the machine"
    if not observed.history.answered:
        told = task.status.message if task.status is not None and task.status.message else "it is asked"
        return f"process server {task.spec.process_server} reads what the vault knows of the machine: {told}"
    names = ", ".join(run.run for run in _missing(observed))
    return f"the vault knows of runs of the machine, which are taken up again: {names}"


def actions(observed: ObservedVM, now: datetime) -> tuple[Action, ...]:
    """Return what is to be done so that the history becomes known, or its task goes when nobody needs it any more."""
    task = observed.history.task
    if not pending(observed):
        return _forget(observed, task)
    if task is None:
        return _ask(observed)
    phase = task.status.phase if task.status is not None else TaskPhase.PENDING
    if phase not in FINAL:
        server = observed.server(task.spec.process_server)
        lost = server is None or not server.connected
        return (DeleteOwned(id_of(task)),) if lost and _reader(observed) is not None else ()
    if phase is TaskPhase.FAILED:
        ended = task.status.finished_at if task.status is not None else None
        return (DeleteOwned(id_of(task)),) if ended is None or now - ended >= AGAIN else ()
    return tuple(action for run in _missing(observed) for action in _recreated(observed, run))


def reckoned(observed: ObservedVM, standing: Standing) -> Standing:
    """Return a standing that was found anew with what the vault says: its epoch counts, and points have followed."""
    if not observed.history.answered or observed.vm.status.active_site is not None:
        return standing
    point = standing.point if standing.place not in (Place.SOURCE, Place.REVERSED) else None
    return standing.model_copy(update={"epoch": max(standing.epoch, observed.history.vault_epoch), "point": point})


def _missing(observed: ObservedVM) -> tuple[JournalledRun, ...]:
    """Return the journalled runs that matter and are not there yet, or have not taken up their steps."""
    there = {run.metadata.name for run in observed.runs if run.status.phase is not None}
    # A control plane that knows the machine has pruned what it does not know, but for what it lacks.
    asked = _asked(observed) if observed.vm.status.active_site is not None else None
    return tuple(
        run
        for run in observed.history.runs[-WINDOW:]
        if run.run not in there and (asked is None or run.run in asked) and _matters(run)
    )


def _asked(observed: ObservedVM) -> set[str]:
    """Return the runs that the machine's status names."""
    status = observed.vm.status
    named = {status.active_run, status.standing.run if status.standing is not None else None}
    return {name for name in named if name is not None}


def _matters(run: JournalledRun) -> bool:
    kind = kind_of(run.spec)  # one that this version cannot read is not waited for
    cleaned = any(s.step == StepName.CLEAN_UP and s.phase is TaskPhase.SUCCEEDED for s in run.steps)
    return kind is not None and (kind is not RunKind.TEST_FAILOVER or not cleaned)


def _recreated(observed: ObservedVM, run: JournalledRun) -> tuple[Action, ...]:
    spec = spec_of(run.spec)
    if spec is None:
        return ()
    marked = {TAKEN_UP_ANNOTATION: "from the vault's journal"}
    return (CreateOwned("FailoverRun", observed.vm.metadata.namespace, run.run, spec.dump(), annotations=marked),)


def awaited(run: FailoverRun) -> bool:
    """Tell whether a run was taken up again and has not yet learned what each of its machines' journals says of it."""
    return TAKEN_UP_ANNOTATION in run.metadata.annotations and not run.status.steps


def _reader(observed: ObservedVM) -> ServerFacts | None:
    """Return who reads the journal: the recovery site first, which is needed for all that follows."""
    able = [server for server in observed.servers if server.registered and server.connected and not server.deleting]
    spec = observed.vm.spec
    for site in (spec.target.site_ref.name, spec.source.site_ref.name):
        here = [server for server in able if server.site == site]
        if here:
            return min(here, key=lambda server: (server.load, server.name))
    return None


def _ask(observed: ObservedVM) -> tuple[Action, ...]:
    server, meta = _reader(observed), observed.vm.metadata
    if server is None:
        return ()
    spec = TaskSpec(
        kind=TaskKind.READ_JOURNAL,
        process_server=server.name,
        protected_vm=meta.name,
        input=TaskInput(machine_id=machine_id(meta.namespace, meta.name)),
    )
    labels = {MACHINE_LABEL: label(meta.name)}
    return (CreateOwned("Task", meta.namespace, task_name(observed), spec.dump(), id_of(observed.vm), labels),)


def _forget(observed: ObservedVM, task: Task | None) -> tuple[Action, ...]:
    """Delete the task when all that it told is taken over: what the vault knows later must be read anew."""
    status = observed.vm.status
    busy = any(awaited(run) for run in observed.runs)
    known = {run.metadata.name for run in observed.runs}
    lost = _asked(observed) - known
    if task is None or status.active_site is None or busy or lost:
        return ()
    return (DeleteOwned(id_of(task)),)
