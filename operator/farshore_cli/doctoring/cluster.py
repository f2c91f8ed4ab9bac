"""What a checklist reads from the cluster: single objects and Secrets, with the caller's own rights."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Protocol, TypeVar

from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_operator.api import Resource as Model
    from farshore_operator.decide.vaultaccess import Values
    from farshore_operator.kube.client import Json
    from farshore_operator.kube.resources import Resource

ModelT = TypeVar("ModelT", bound="Model")


class Reader(Protocol):
    """What of `kube.client.Client` is needed."""

    def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        """Return an object, None if it does not exist."""

    def list_all(self, resource: Resource, namespace: str | None) -> list[Json]:
        """Return all objects of a kind."""

    def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create an object. Raises AlreadyExists if the name is taken."""

    def merge(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        """Change some fields of an object."""


class Namespace:
    """The objects of one namespace, for a checklist.

    Args:
        client: reads the cluster.
        name: of the namespace.
    """

    def __init__(self, client: Reader, name: str) -> None:
        self.client = client
        self.name = name

    def need(self, model: type[ModelT], name: str) -> ModelT:
        """Return an object; raises StopFault where it does not exist."""
        found = self.find(model, name)
        if found is None:
            kind = model.definition
            raise StopFault(
                f"there is no {kind.kind} {name} in namespace {self.name}", f"`kubectl get {kind.plural}` lists them"
            )
        return found

    def find(self, model: type[ModelT], name: str) -> ModelT | None:
        """Return an object, None where it does not exist."""
        from farshore_operator.kube.resources import BY_KIND

        body = self.client.get(BY_KIND[model.definition.kind], self.name, name)
        return model.of(body) if body is not None else None

    def secret(self, name: str, field: str) -> Values:
        """Return the data of a Secret; raises StopFault where it does not exist.

        Args:
            field: that names it.
        """
        from farshore_operator.kube.resources import SECRET

        body = self.client.get(SECRET, self.name, name)
        if body is None:
            raise StopFault(
                f"{field} names Secret {self.name}/{name}, which does not exist", "Create it", reason="NoSecret"
            )
        return {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}

    def annotate(self, resource: Resource, name: str, annotation: str, value: str | None) -> None:
        """Set an annotation of an object, or take it away; raises Fault."""
        self.client.merge(resource, self.name, name, {"metadata": {"annotations": {annotation: value}}})

    def create(self, resource: Resource, body: Json) -> None:
        """Create an object; raises Fault."""
        self.client.create(resource, self.name, body)


def current(namespace: str) -> Namespace:
    """Return a namespace of the cluster of the kubeconfig; empty for the current context's."""
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment

    return Namespace(Client(from_environment(), "farshore-cli"), namespace or current_namespace())
