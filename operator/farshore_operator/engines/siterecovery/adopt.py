"""Manifests for machines that Site Recovery protects already, as they are: applying them changes nothing in Azure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farshore_operator.api import GROUP, VERSION
from farshore_operator.engines.siterecovery.facts import Item, PolicyFacts
from farshore_operator.engines.siterecovery.naming import last

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where manifests belong: namespace, and the names of the RecoveryVault and of both Sites."""

    namespace: str
    vault: str
    source: str
    target: str


@dataclass(frozen=True)
class Adoption:
    """The manifests by file name, and the machines that got none with the reason."""

    manifests: Mapping[str, Manifest]
    left_out: tuple[tuple[str, str], ...] = ()


def adopt(
    items: Sequence[Item], policies: Mapping[str, PolicyFacts], taken: Mapping[str, str], place: Place
) -> Adoption:
    """Return manifests of the machines that no ProtectedVM means.

    Args:
        items: with all their parts.
        policies: by name.
        taken: names of the ProtectedVMs that there are, by address.
        place: where the manifests belong.
    """
    found: dict[str, Manifest] = {}
    left: list[tuple[str, str]] = []
    names = set(taken.values())
    for item in sorted(items, key=lambda one: one.friendly):
        why = _unfit(item, taken)
        if why:
            left.append((item.friendly, why))
            continue
        name = _free(_dns(item.friendly), names)
        names.add(name)
        known = policies.get(item.policy)
        policy = _dns(item.policy) or "site-recovery"
        if known is not None:
            found.setdefault(f"replicationpolicy-{policy}.yaml", _policy(policy, known, place))
        found[f"protectedvm-{name}.yaml"] = _machine(name, policy, item, place)
    return Adoption(found, tuple(left))


def _unfit(item: Item, taken: Mapping[str, str]) -> str:
    if item.address in taken:
        return f"ProtectedVM {taken[item.address]} means it already"
    if not item.address:
        return "Site Recovery does not tell its address"
    if item.switched_to:
        return "it was switched to the modernized experience: its new item is what is protected"
    return "it is failed over: commit it or go back first" if item.recovered else ""


def _machine(name: str, policy: str, item: Item, place: Place) -> Manifest:
    source: Manifest = {"siteRef": {"name": place.source}, "address": item.address}
    if item.windows:
        source["osType"] = "windows"
    target: Manifest = {"siteRef": {"name": place.target}}
    if item.target is not None:
        found = {
            "name": item.target.name,
            "resourceGroup": last(item.target.resource_group),
            "size": item.target.size,
            "network": item.target.network,
            "subnet": item.target.subnet,
            "availabilitySet": item.target.availability_set,
            "zone": item.target.zone,
            "diskType": item.target.disk_type,
            "tags": dict(item.target.tags),
        }
        target |= {key: value for key, value in found.items() if value}
    spec = {
        "source": source,
        "policyRef": {"name": policy},
        "vaultRef": {"name": place.vault},
        "target": target,
        "deletionPolicy": "Retain",  # what somebody else has made is not undone by the deletion of a manifest
    }
    return _made("ProtectedVM", name, spec, place)


def _policy(name: str, known: PolicyFacts, place: Place) -> Manifest:
    spec: Manifest = {"crashConsistentInterval": "5m", "retention": {"keepAll": f"{max(known.keep_minutes, 5)}m"}}
    if known.app_minutes:
        spec["appConsistentInterval"] = f"{known.app_minutes}m"
    return _made("ReplicationPolicy", name, spec, place)


def _made(kind: str, name: str, spec: Manifest, place: Place) -> Manifest:
    meta = {"name": name, "namespace": place.namespace}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": meta, "spec": spec}


def _dns(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or "machine"


def _free(name: str, taken: set[str]) -> str:
    number = 2
    chosen = name
    while chosen in taken:
        chosen, number = f"{name[:59]}-{number}", number + 1
    return chosen
