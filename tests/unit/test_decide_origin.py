"""Who asked for a run, by what the plan itself says: a mark that somebody left there earlier does not count."""

from __future__ import annotations

from typing import Any

import pytest

from farshore_operator.decide.origin import Applied, Applier, applier, requested_by, writer
from farshore_operator.observe.revisions import revision_of

FLUX_LABELS = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
HELM_LABELS = {"helm.toolkit.fluxcd.io/name": "shop", "helm.toolkit.fluxcd.io/namespace": "apps"}
JANE = {"farshore.dev/requested-by": "jane", "farshore.dev/reason": "the site burns"}
SITE = {"f:spec": {"f:activeSite": {}}}


def owns(*annotations: str, spec: bool = True) -> dict[str, Any]:
    notes = {f"f:{name}": {} for name in annotations}
    return {**(SITE if spec else {}), **({"f:metadata": {"f:annotations": notes}} if notes else {})}


def plan(*entries: tuple[str, str, dict[str, Any]], labels: Any = None, annotations: Any = None) -> dict[str, Any]:
    """Return a plan; the entries are (field manager, minute of its last change, fields)."""
    fields = [
        {"manager": manager, "operation": "Apply", "time": f"2025-01-31T08:{minute}:00Z", "fieldsV1": owned}
        for manager, minute, owned in entries
    ]
    meta = {"name": "shop", "namespace": "payments", "managedFields": fields}
    return {"metadata": {**meta, "labels": labels, "annotations": annotations}}


@pytest.mark.parametrize(
    ("body", "manager"),
    [
        pytest.param(plan(("kubectl-edit", "10", SITE)), "kubectl-edit", id="one-writer"),
        pytest.param(
            plan(("kustomize-controller", "10", SITE), ("kubectl-edit", "20", SITE)), "kubectl-edit", id="the-newest"
        ),
        pytest.param(plan(("kustomize-controller", "10", {"f:spec": {"f:groups": {}}})), "", id="nobody"),
        pytest.param(plan(), "", id="no-managed-fields"),
    ],
)
def test_the_newest_writer_of_the_field_counts(body: dict[str, Any], manager: str) -> None:
    assert writer(body, "spec", "activeSite") == manager


def test_what_is_written_to_the_status_is_no_request() -> None:
    body = plan(("farshore-operator", "59", SITE), ("kubectl-edit", "10", SITE))
    body["metadata"]["managedFields"][0]["subresource"] = "status"
    assert writer(body, "spec", "activeSite") == "kubectl-edit"


TRACKED = "shop-app:farshore.dev/FailoverPlan:payments/shop"


@pytest.mark.parametrize(
    ("manager", "marks", "expected"),
    [
        pytest.param(
            "kustomize-controller",
            {"labels": FLUX_LABELS},
            Applier("Kustomization", ("flux-system",), "apps"),
            id="flux-kustomization",
        ),
        pytest.param(
            "helm-controller", {"labels": HELM_LABELS}, Applier("HelmRelease", ("apps",), "shop"), id="flux-helmrelease"
        ),
        pytest.param(
            "argocd-controller",
            {"annotations": {"argocd.argoproj.io/tracking-id": TRACKED}},
            Applier("Application", ("argocd", "openshift-gitops"), "shop-app"),
            id="argo-cd",
        ),
        pytest.param(
            "argocd-controller",
            {"annotations": {"argocd.argoproj.io/tracking-id": f"team-a_{TRACKED}"}},
            Applier("Application", ("team-a",), "shop-app"),
            id="argo-cd-application-in-another-namespace",
        ),
        pytest.param(
            "argocd-controller",
            {
                "annotations": {
                    "argocd.argoproj.io/tracking-id": TRACKED.replace("shop-app", "x").replace("/shop", "/y")
                }
            },
            None,
            id="argo-cd-mark-copied-from-another-object",
        ),
        pytest.param("kubectl-edit", {"labels": FLUX_LABELS}, None, id="edited-by-hand-after-flux"),
        pytest.param("kustomize-controller", {}, None, id="no-mark"),
    ],
)
def test_the_applier(manager: str, marks: dict[str, Any], expected: Applier | None) -> None:
    assert applier(plan((manager, "10", SITE), **marks), manager) == expected


NOTES = tuple(JANE)


@pytest.mark.parametrize(
    ("body", "user"),
    [
        pytest.param(plan(("kubectl-patch", "10", owns(*NOTES)), annotations=JANE), "jane", id="in-one-request"),
        pytest.param(
            plan(("kubectl-annotate", "09", owns(*NOTES, spec=False)), ("kubectl-patch", "10", SITE), annotations=JANE),
            "jane",
            id="with-two-commands",
        ),
        pytest.param(plan(("kustomize-controller", "10", owns(*NOTES)), annotations=JANE), "jane", id="in-the-commit"),
        pytest.param(
            plan(("kubectl-patch", "09", owns(*NOTES)), ("kustomize-controller", "30", SITE), annotations=JANE),
            None,
            id="left-by-hand-before-git-moved-the-machines",
        ),
        pytest.param(
            plan(("kustomize-controller", "09", owns(*NOTES)), ("kubectl-edit", "30", SITE), annotations=JANE),
            None,
            id="from-git-before-somebody-moved-the-machines-by-hand",
        ),
        pytest.param(plan(("kubectl-edit", "10", SITE)), None, id="nobody-signed"),
    ],
)
def test_a_signature_counts_for_who_gave_it(body: dict[str, Any], user: str | None) -> None:
    found = requested_by(body, "activeSite")
    assert found.user == user
    assert found.reason == (JANE["farshore.dev/reason"] if user else None)


def test_all_of_it_together() -> None:
    body = plan(("kustomize-controller", "10", owns(*NOTES)), labels=FLUX_LABELS, annotations=JANE)
    found = requested_by(body, "activeSite", Applied("Kustomization flux-system/apps", "main@sha1:4c2f"))
    assert found.dump() == {
        "user": "jane",
        "fieldManager": "kustomize-controller",
        "revision": "main@sha1:4c2f",
        "appliedBy": "Kustomization flux-system/apps",
        "reason": "the site burns",
    }


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        pytest.param(
            {"lastAppliedRevision": "main@sha1:old", "lastAttemptedRevision": "main@sha1:new"},
            "Kustomization",
            "main@sha1:new",
            id="flux-is-applying",
        ),
        pytest.param({"lastAppliedRevision": "main@sha1:old"}, "Kustomization", "main@sha1:old", id="flux-applied"),
        pytest.param(
            {"sync": {"revision": "old"}, "operationState": {"syncResult": {"revision": "new"}}},
            "Application",
            "new",
            id="argo-cd-is-syncing",
        ),
        pytest.param({"sync": {"revision": "old"}}, "Application", "old", id="argo-cd-synced"),
        pytest.param({"sync": {"revisions": ["a", "b"]}}, "Application", "a,b", id="argo-cd-several-sources"),
        pytest.param(None, "Kustomization", "", id="nothing-yet"),
    ],
)
def test_the_revision(status: Any, kind: str, expected: str) -> None:
    assert revision_of({"kind": kind, "status": status}) == expected
