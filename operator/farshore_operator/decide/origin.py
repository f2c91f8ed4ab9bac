"""Who wrote a field of an object, as far as the object itself says: its managed fields, labels and annotations.

Flux marks what a Kustomization or HelmRelease applies with labels, and Argo CD what an Application applies with the
annotation `argocd.argoproj.io/tracking-id`. Both marks stay when somebody else edits the object afterwards, so they
count only if the field's newest writer is that controller, by its field manager.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from farshore_operator.api.failoverrun import RequestedBy, RunKind
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.decision import Action

REQUESTED_BY = "farshore.dev/requested-by"
REASON = "farshore.dev/reason"

FLUX_KUSTOMIZE = "kustomize-controller"
FLUX_HELM = "helm-controller"
ARGO_CD = ("argocd-controller", "argocd-application-controller")
TRACKING = "argocd.argoproj.io/tracking-id"
ARGO_CD_NAMESPACES = ("argocd", "openshift-gitops")
"""Where an Application is looked for whose tracking id does not name its namespace."""
ANNOTATION_LENGTH = 4096


@dataclass(frozen=True)
class Applier:
    """The object of Flux or Argo CD that applied another; `namespaces` are those where it may be, likeliest first."""

    kind: str
    namespaces: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Applied:
    """An applier that was found, and the revision that it applied."""

    applier: str
    revision: str


def writer(body: Mapping[str, Any], *path: str) -> str:
    """Return the field manager that wrote a field last, such as ("spec", "activeSite"); empty if nobody owns it."""
    owners = _owners(body, path)
    return max(owners, key=lambda owner: owner[1])[0] if owners else ""


def applier(body: Mapping[str, Any], manager: str) -> Applier | None:
    """Return what applied the object, if `manager` is the field manager of Flux or Argo CD."""
    meta = body["metadata"]
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    for controller, kind, group in ((FLUX_KUSTOMIZE, "Kustomization", "kustomize"), (FLUX_HELM, "HelmRelease", "helm")):
        name = labels.get(f"{group}.toolkit.fluxcd.io/name")
        namespace = labels.get(f"{group}.toolkit.fluxcd.io/namespace")
        if manager == controller and name and namespace:
            return Applier(kind, (namespace,), name)
    if manager in ARGO_CD:
        return _application(meta, str(annotations.get(TRACKING, "")))
    return None


def requested_by(body: Mapping[str, Any], field: str, applied: Applied | None = None) -> RequestedBy:
    """Return who asked for what `spec.<field>` says; `applied` is what was found of its applier."""
    manager = writer(body, "spec", field) or writer(body, "spec")
    return RequestedBy(
        user=_annotation(body, REQUESTED_BY, manager),
        field_manager=manager or None,
        revision=applied.revision if applied else None,
        applied_by=applied.applier if applied else None,
        reason=_annotation(body, REASON, manager),
    )


def _application(meta: Mapping[str, Any], tracking: str) -> Applier | None:
    """Read `<application>:<group>/<kind>:<namespace>/<name>`; it must mean this object, for it is copied with it."""
    parts = tracking.split(":")
    own = f"{meta.get('namespace', '')}/{meta['name']}"
    if len(parts) != 3 or parts[2] != own or not parts[0]:
        return None
    namespace, _, name = parts[0].rpartition("_")
    return Applier("Application", (namespace,) if namespace else ARGO_CD_NAMESPACES, name)


def _annotation(body: Mapping[str, Any], name: str, manager: str) -> str | None:
    """Return an annotation, unless it was left there by another than who wrote the field.

    What Git applies says who only if the commit does. A person may write annotation and field with two commands.
    """
    text = (body["metadata"].get("annotations") or {}).get(name)
    if not text:
        return None
    owners = {owner for owner, _ in _owners(body, ("metadata", "annotations", name))}
    by_hand = not _is_git(manager) and any(not _is_git(owner) for owner in owners)
    return str(text)[:ANNOTATION_LENGTH] if manager in owners or by_hand else None


def _is_git(manager: str) -> bool:
    return manager in (FLUX_KUSTOMIZE, FLUX_HELM, *ARGO_CD)


def _owners(body: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (field manager, time of its last change) of the owners of a field."""
    found = []
    for entry in body["metadata"].get("managedFields") or ():
        if entry.get("subresource"):
            continue
        node: Any = entry.get("fieldsV1") or {}
        for part in path:
            node = node.get(f"f:{part}") if isinstance(node, Mapping) else None
        if node is not None:
            found.append((str(entry.get("manager", "")), str(entry.get("time", ""))))
    return found


ASKED_BY = {
    RunKind.FAILOVER: "activeSite",
    RunKind.FAILBACK: "activeSite",
    RunKind.COMMIT: "commit",
    RunKind.ABORT: "abort",
    RunKind.CHANGE_POINT: "changeRecoveryPoint",
    RunKind.REPROTECT: "reprotect",
}
"""The field of a plan that asks for each kind of run."""
DRILL_FIELD = "recoveryPoint"
"""Any field of a TestFailover's spec: it is written as a whole."""


def signed(actions: Iterable[Action], requests: Mapping[str, RequestedBy]) -> tuple[Action, ...]:
    """Return the actions, with who asked in each run that they make; `requests` are by the field that asks."""
    return tuple(_signed(action, requests) for action in actions)


def _signed(action: Action, requests: Mapping[str, RequestedBy]) -> Action:
    if not isinstance(action, CreateOwned) or action.kind != "FailoverRun":
        return action
    field = ASKED_BY.get(RunKind(action.spec["kind"]), DRILL_FIELD)
    asked = requests.get(field)
    return replace(action, spec={**action.spec, "requestedBy": asked.dump()}) if asked else action
