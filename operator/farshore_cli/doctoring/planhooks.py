"""What a plan's hooks need in the cluster: Secrets, accounts, names that resolve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farshore_cli.doctoring.cluster import Namespace
from farshore_engine.checklist import Checklist
from farshore_engine.contract.faults import StopFault
from farshore_engine.networkpath import path_to

if TYPE_CHECKING:
    from farshore_operator.api import FailoverPlan
    from farshore_operator.api.hook import Hook, HTTPHook, JobHook


def check(found: Checklist, plan: FailoverPlan, where: Namespace) -> None:
    """Add one line for each hook of the plan."""
    for group in plan.spec.groups:
        for when, hooks in (("before", group.before), ("after", group.after)):
            for hook in hooks:
                _hook(found, f"{group.name}-{when}-{hook.name}", hook, where)


def _hook(found: Checklist, name: str, hook: Hook, where: Namespace) -> None:
    job, http = hook.job, hook.http
    if job is not None:
        found.ask(f"{name}/Job", lambda: _job(job, where))
    elif http is not None:
        if http.headers_secret_ref is not None:
            secret = http.headers_secret_ref.name
            found.ask(f"{name}/Headers", lambda: _headers(secret, where))
        found.advise(f"{name}/URL", lambda: _url(http))
    elif hook.approval is not None:
        asked = ", ".join((*hook.approval.users, *hook.approval.groups)) or "everybody who may create Approvals"
        found.ask(f"{name}/Approval", lambda: f"people approve: {asked}")


def _job(job: JobHook, where: Namespace) -> str:
    from farshore_operator.decide.naming import HOOK_ACCOUNT_LABEL
    from farshore_operator.kube.resources import SERVICE_ACCOUNT

    account = job.service_account_name
    if account is None:
        return f"{job.image} runs without an account; whether the image can be had is not known here"
    body = where.client.get(SERVICE_ACCOUNT, where.name, account)
    if body is None:
        raise StopFault(f"ServiceAccount {account} does not exist", "Create it", reason="NoAccount")
    if (body["metadata"].get("labels") or {}).get(HOOK_ACCOUNT_LABEL) != "true":
        raise StopFault(
            f"ServiceAccount {account} is not one that hooks may use",
            f'Give it the label {HOOK_ACCOUNT_LABEL}: "true", if plans may act as it',
            reason="AccountNotForHooks",
        )
    return f"{job.image} runs as {account}"


def _headers(name: str, where: Namespace) -> str:
    from farshore_operator.decide.naming import HOOK_SECRET_TYPE
    from farshore_operator.kube.resources import SECRET

    body = where.client.get(SECRET, where.name, name)
    if body is None:
        raise StopFault(f"Secret {name} with its headers does not exist", "Create it", reason="NoSecret")
    if body.get("type") != HOOK_SECRET_TYPE:
        raise StopFault(
            f"Secret {name} is not of type {HOOK_SECRET_TYPE}",
            "Make it anew with that type: a hook sends no other Secret away",
            reason="SecretNotForHooks",
        )
    return f"Secret {name} has its headers"


def _url(http: HTTPHook) -> str:
    """The operator calls it, from the cluster: what is found here is a hint."""
    return f"{path_to(http.url).describe()}, seen from here (the operator calls it from the cluster)"
