"""Gives a ServiceAccount exactly the rights that were decided, by server-side apply: repeated, it changes nothing."""

from __future__ import annotations

import hashlib
import json
import threading

from farshore_operator.act.effects import MANAGED_BY, Effects, owned_by
from farshore_operator.decide.actions import GrantAccount, PolicyRule
from farshore_operator.decide.decision import Outcome
from farshore_operator.kube.client import Json
from farshore_operator.kube.resources import ROLE, ROLE_BINDING, SERVICE_ACCOUNT


class Granted:
    """Remembers which grants are in force, so that a reconciliation at rest writes nothing.

    Somebody who removes a Role by hand gets it back after the resync, when the memory is dropped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: dict[tuple[str, str], str] = {}

    def forget(self) -> None:
        """Let every grant be written again."""
        with self._lock:
            self._digests.clear()

    def perform(self, effects: Effects, action: GrantAccount) -> tuple[Outcome, ...]:
        """Apply ServiceAccount, Role and RoleBinding."""
        namespace, name, owner = action.owner.namespace, action.name, action.owner
        meta: Json = {
            "name": name,
            "namespace": namespace,
            "labels": {**MANAGED_BY, **action.labels},
            **owned_by(owner),
        }
        rules = [_rule(rule) for rule in action.rules]
        digest = hashlib.sha256(json.dumps([meta, rules], sort_keys=True).encode()).hexdigest()
        with self._lock:
            if self._digests.get((namespace, name)) == digest:
                return ()
        effects.client.apply(SERVICE_ACCOUNT, namespace, {"metadata": meta, "automountServiceAccountToken": False})
        effects.client.apply(ROLE, namespace, {"metadata": meta, "rules": rules})
        effects.client.apply(
            ROLE_BINDING,
            namespace,
            {
                "metadata": meta,
                "roleRef": {"apiGroup": ROLE.group, "kind": ROLE.kind, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            },
        )
        with self._lock:
            self._digests[(namespace, name)] = digest
        return ()


def _rule(rule: PolicyRule) -> Json:
    body: Json = {"apiGroups": list(rule.groups), "resources": list(rule.resources), "verbs": list(rule.verbs)}
    if rule.names:
        body["resourceNames"] = list(rule.names)
    return body
