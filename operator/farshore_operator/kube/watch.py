"""kopf as a watch engine: it lists, watches and reconnects; what to do about an event is decided elsewhere.

Only `kopf.on.event` is used, so kopf writes nothing into objects: no finalizers, no annotations, no patches.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import kopf

from farshore_operator.kube.client import Json
from farshore_operator.kube.resources import WATCHED, Resource

Sink = Callable[[Resource, bool, Json], None]
"""Is told of (resource, whether it was deleted, object), in the event loop."""


class Backoffs:
    """Seconds between attempts, without an end: kopf ends the operator when a finite list of them is through.

    An API server that answers 500 for some minutes (etcd is away) or 403 while it starts is to be waited for.
    """

    def __iter__(self) -> Iterator[float]:
        """Begin anew for each request."""
        return chain((1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0), repeat(30.0))


def configure(settings: kopf.OperatorSettings) -> None:
    """Keep kopf from writing and from needing rights that the chart does not grant."""
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = 240
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = Backoffs()
    settings.process.ultimate_exiting_timeout = 30


def register(registry: kopf.OperatorRegistry, sink: Callable[[Any], Sink]) -> None:
    """Watch all kinds; `sink` finds, in kopf's memo, who is told."""
    for resource in WATCHED:
        _register_one(registry, resource, sink)


def _register_one(registry: kopf.OperatorRegistry, resource: Resource, sink: Callable[[Any], Sink]) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, id=resource.plural, registry=registry)
    async def told(event: Any, memo: Any, **_: Any) -> None:
        sink(memo)(resource, event["type"] == "DELETED", dict(event["object"]))


def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """Log in as the pod's ServiceAccount, or else by the kubeconfig; read anew whenever a token is refused."""
    mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    if mounted.is_file() and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return kopf.login_with_service_account(settings=settings)
    return kopf.login_with_kubeconfig(settings=settings)
