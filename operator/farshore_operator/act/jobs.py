"""Makes the Job of a hook, once: its name follows from the run and the step. The cluster ends it at its deadline.

A pod gets no rights but those of a ServiceAccount that is meant for hooks, so that who may edit a plan does not act as
any account of the namespace; an admission policy holds the operator to that.
"""

from __future__ import annotations

from farshore_engine.contract.faults import Fault, StopFault
from farshore_operator.act.effects import MANAGED_BY, Effects, owned_by
from farshore_operator.decide.actions import HookAnswered, RunJob
from farshore_operator.decide.decision import Outcome
from farshore_operator.decide.naming import HOOK_ACCOUNT_LABEL
from farshore_operator.kube.client import Json
from farshore_operator.kube.resources import JOB, SERVICE_ACCOUNT

KEPT_SECONDS = 7 * 24 * 3600
"""How long an ended Job stays, for its log."""


def perform(effects: Effects, action: RunJob) -> tuple[Outcome, ...]:
    """Create the Job, or say in the hook's step why it could not be; what time may heal leaves the hook running."""
    try:
        _check_account(effects, action)
        effects.client.ensure(JOB, action.owner.namespace, job(action))
    except Fault as fault:
        over = False if isinstance(fault, StopFault) else None
        return (HookAnswered(action.step, over, f"Job {action.name}: {fault.message}", effects.now(), fault.remedy),)
    return (HookAnswered(action.step, None, f"Job {action.name} is made", effects.now()),)


def _check_account(effects: Effects, action: RunJob) -> None:
    name, namespace = action.job.service_account_name, action.owner.namespace
    if name is None:
        return
    found = effects.client.get(SERVICE_ACCOUNT, namespace, name)
    if found is None:
        raise StopFault(f"ServiceAccount {namespace}/{name} does not exist", "Make it, and start again")
    if (found["metadata"].get("labels") or {}).get(HOOK_ACCOUNT_LABEL) != "true":
        raise StopFault(
            f"ServiceAccount {namespace}/{name} is not meant for hooks",
            f"Label it: kubectl -n {namespace} label serviceaccount {name} {HOOK_ACCOUNT_LABEL}=true; and start again",
        )


def job(action: RunJob) -> Json:
    """Return the Job's manifest."""
    wanted = action.job
    meta: Json = {
        "name": action.name,
        "namespace": action.owner.namespace,
        "labels": {**MANAGED_BY, **action.labels},
        **owned_by(action.owner),
    }
    container: Json = {
        "name": "hook",
        "image": wanted.image,
        "env": [{"name": name, "value": value} for name, value in action.environment.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if wanted.command:
        container["command"] = list(wanted.command)
    pod: Json = {
        "restartPolicy": "Never",
        "containers": [container],
        "automountServiceAccountToken": wanted.service_account_name is not None,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    }
    if wanted.service_account_name:
        pod["serviceAccountName"] = wanted.service_account_name
    spec: Json = {
        "backoffLimit": wanted.retries,
        "activeDeadlineSeconds": max(1, action.seconds),
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": {"metadata": {"labels": dict(action.labels)}, "spec": pod},
    }
    return {"metadata": meta, "spec": spec}
