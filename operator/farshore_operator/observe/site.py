"""What the decision on a Site is made from."""

from __future__ import annotations

from farshore_operator.api import ProcessServer, ProtectedVM, Site
from farshore_operator.api.processserver import RegistrationPhase
from farshore_operator.decide.references import SecretUse
from farshore_operator.decide.site import ObservedSite
from farshore_operator.observe.world import World, spec_ref


def observe(world: World, site: Site) -> ObservedSite:
    """Collect process servers, machines and Secrets of a site."""
    namespace, name = site.metadata.namespace, site.metadata.name
    servers = world.all(ProcessServer, namespace, lambda body: spec_ref(body, "siteRef") == name)
    now = world.now()
    registered = [
        s for s in servers if s.status.registration and s.status.registration.phase is RegistrationPhase.REGISTERED
    ]
    return ObservedSite(
        site=site,
        secrets=_secrets(world, site),
        registered=len(registered),
        alive=sum(1 for s in registered if world.heartbeats.connected(namespace, s.metadata.name, now)),
        machines=world.count(ProtectedVM, namespace, lambda body: spec_ref(body, "source", "siteRef") == name),
    )


def _secrets(world: World, site: Site) -> tuple[SecretUse, ...]:
    namespace, spec = site.metadata.namespace, site.spec
    found = []
    if spec.credentials_secret_ref:
        field = "spec.credentialsSecretRef"
        found.append(world.secret(namespace, field, spec.credentials_secret_ref.name))
    if spec.azure and spec.azure.credentials_secret_ref:
        field = "spec.azure.credentialsSecretRef"
        found.append(world.secret(namespace, field, spec.azure.credentials_secret_ref.name))
    if spec.azure and spec.azure.replicas and spec.azure.replicas.credential:
        credential = spec.azure.replicas.credential
        field = "spec.azure.replicas.credential.secretRef"
        found.append(world.secret(namespace, field, credential.secret_ref.name, credential.secret_keys))
    if spec.azure_stack_hub:
        field = "spec.azureStackHub.credentialsSecretRef"
        found.append(world.secret(namespace, field, spec.azure_stack_hub.credentials_secret_ref.name))
    return tuple(found)
