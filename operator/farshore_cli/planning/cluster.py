"""What `farshore plan` asks the cluster: lists, single Secrets by name, and server-side dry runs. It writes nothing."""

from __future__ import annotations

from typing import Protocol

from farshore_cli.planning.manifests import Json, Manifest
from farshore_engine.contract.faults import Fault
from farshore_operator.kube.client import Client
from farshore_operator.kube.faults import Forbidden, NotFound, Refused
from farshore_operator.kube.resources import BY_KIND, SECRET, WATCHED


class NoDryRun(Fault):
    """The API server may not be asked for a dry run: the right is missing, or the namespace is not there yet."""


class Declined(Fault):
    """The API server refuses the object: its schema, a rule, or a policy."""


class Cluster(Protocol):
    """A cluster that is read."""

    def objects(self, namespace: str) -> list[Json]:
        """Return all objects of our kinds in a namespace, each with `kind`."""

    def has_secret(self, namespace: str, name: str) -> bool | None:
        """Tell whether a Secret exists; None if that may not be known."""

    def dry_run(self, manifest: Manifest, manager: str) -> Json:
        """Return the object as it would be after a server-side apply by a field manager.

        Raises:
            NoDryRun: it may not be asked.
            Declined: it would be refused.
        """


class KubeCluster:
    """The cluster of a kubeconfig."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def objects(self, namespace: str) -> list[Json]:
        """Return all objects of our kinds in a namespace."""
        found = []
        for resource in WATCHED:
            for body in self._client.list_all(resource, namespace):
                found.append({"apiVersion": resource.api_version, "kind": resource.kind, **body})
        return found

    def has_secret(self, namespace: str, name: str) -> bool | None:
        """Tell whether a Secret exists; a reader may not know."""
        try:
            return self._client.get(SECRET, namespace, name) is not None
        except Forbidden:
            return None

    def dry_run(self, manifest: Manifest, manager: str) -> Json:
        """Ask the API server what it would store."""
        try:
            return self._client.dry_run(BY_KIND[manifest.kind], manifest.namespace, manifest.body, manager)
        except NotFound as fault:
            raise NoDryRun(fault.message, fault.remedy) from fault
        except Refused as fault:
            raise Declined(fault.message, fault.remedy) from fault
        except Forbidden as fault:
            if "ValidatingAdmissionPolicy" in fault.message:
                raise Declined(fault.message, fault.remedy) from fault
            raise NoDryRun(fault.message, fault.remedy) from fault
