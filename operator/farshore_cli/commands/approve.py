"""`farshore approve`: says yes or no, in one's own name, to a hook of a run that waits for people."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_operator.api import FailoverRun
    from farshore_operator.api.failoverrun import Step
    from farshore_operator.kube.client import Json

app = typer.Typer()


@app.command("approve")
def approve(
    run: Annotated[str, typer.Argument(help="Name of the FailoverRun.")],
    hook: Annotated[str, typer.Argument(help="Hook that waits: its name, or <group>/<before|after>/<name>.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    reject: Annotated[bool, typer.Option("--reject", help="Say no, which fails the hook.")] = False,
    comment: Annotated[str, typer.Option("--comment", "-m", help="What is to be on record.")] = "",
) -> None:
    """Approve (or reject) a hook of a run that waits for people, as the user of the current context."""
    from farshore_operator.api import FailoverRun
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment
    from farshore_operator.kube.faults import AlreadyExists
    from farshore_operator.kube.resources import APPROVAL, FAILOVER_RUN

    client, where = Client(from_environment(), "farshore-cli"), namespace or current_namespace()
    body = client.get(FAILOVER_RUN, where, run)
    if body is None:
        raise StopFault(f"there is no FailoverRun {where}/{run}", "`kubectl get failoverruns` lists them")
    found = FailoverRun.of(body)
    step = waiting_step(found, hook)
    user, groups = client.whoami()
    made = approval(found, step, user, groups, reject=reject, comment=comment)
    try:
        client.create(APPROVAL, where, made)
    except AlreadyExists as fault:
        raise StopFault(f"{user} has answered {step.name} of run {run} already", "It stays on record") from fault
    print(f"{'rejected' if reject else 'approved'}: {step.name} of run {run}, as {user}")


def waiting_step(run: FailoverRun, hook: str) -> Step:
    """Return the step that waits for people and is meant by `hook`.

    Raises:
        StopFault: none is, or several are.
    """
    from farshore_operator.api.failoverrun import StepPhase
    from farshore_operator.decide.hooks import hook_of, is_hook

    waits = []
    for step in run.status.steps:
        declared = hook_of(run, step) if is_hook(step) and step.phase is StepPhase.RUNNING else None
        if declared is not None and declared.approval is not None:
            waits.append((step, declared.name))
    meant = [step for step, name in waits if hook in (step.name, name)]
    if len(meant) == 1:
        return meant[0]
    known = ", ".join(step.name for step, _ in waits) or "none does"
    raise StopFault(f"no single hook {hook} of run {run.metadata.name} waits for people", f"What waits now: {known}")


def approval(run: FailoverRun, step: Step, user: str, groups: tuple[str, ...], *, reject: bool, comment: str) -> Json:
    """Return the Approval, which goes with its run; of the person's groups it names those that the hook asks for."""
    from farshore_operator.decide.hooks import hook_of
    from farshore_operator.decide.naming import bounded

    hook = hook_of(run, step)
    wanted = hook.approval.groups if hook is not None and hook.approval is not None else ()
    answer = "Reject" if reject else "Approve"
    mark = hashlib.sha256(f"{step.name}\0{user}".encode()).hexdigest()[:10]
    meta = run.metadata
    spec = {
        "run": meta.name,
        "hook": step.name,
        "answer": answer,
        "user": user,
        "groups": [group for group in groups if group in wanted],
    }
    owner = {
        "apiVersion": run.api_version, "kind": "FailoverRun", "name": meta.name, "uid": meta.uid,
        "blockOwnerDeletion": False,
    }  # fmt: skip
    name = f"{bounded(meta.name, 200)}-{answer.lower()}-{mark}"
    return {
        "metadata": {"name": name, "namespace": meta.namespace, "ownerReferences": [owner]},
        "spec": spec | ({"comment": comment} if comment else {}),
    }
