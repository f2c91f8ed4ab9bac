"""The simulator as a test holds it: starts and stops, is seeded, planned to fail, and asked what happened."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.azuresim.arm import strict, tls
from tests.azuresim.arm.call import Asked, Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.faults import Faults
from tests.azuresim.arm.identity import Grant, Principal, Roles, Tokens
from tests.azuresim.arm.operations import Operations, Pace
from tests.azuresim.arm.registry import Registry
from tests.azuresim.arm.server import ArmConnection, Server
from tests.azuresim.arm.store import Resource, Store

TENANT = "72f988bf-0000-4000-8000-2d7cd011db47"
CLIENT = "a0b1c2d3-0000-4000-8000-00000000c11e"
SUBSCRIPTION = "5ab5c4d1-0000-4000-8000-0000000050b5"


class Credential(NamedTuple):
    """What a client of this simulator needs to prove itself."""

    tenant_id: str
    client_id: str
    client_secret: str
    authority: str


@dataclass(frozen=True)
class Record:
    """One call. `plane`: arm, token, data. `who` is the client id, empty when unknown. `body` is the raw request."""

    plane: str
    method: str
    path: str
    api_version: str
    who: str
    status: int
    query: Mapping[str, str]
    user_agent: str
    body: bytes


@dataclass(repr=False, eq=False)
class AzureSim:
    """One cloud. Use it as a context manager; `with` starts its servers.

    `plugins` are called with the simulator to add routes (see `arm.registry`); the default ones are compute, network,
    storage, resources and authorization.
    """

    directory: Path | None = None
    subscription: str = SUBSCRIPTION
    tenant: str = TENANT
    region: str = "westeurope"
    other_regions: tuple[str, ...] = ("northeurope",)
    plugins: Iterable[Callable[[AzureSim], None]] | None = None
    page_size: int = 25

    faults: Faults = field(default_factory=Faults)
    operations: Operations = field(default_factory=Operations)
    arm: Registry = field(default_factory=Registry)
    store: Store = field(default_factory=Store)
    roles: Roles = field(default_factory=Roles)
    calls: list[Record] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    """Mistakes of the simulator itself; leaving the context with one raises."""
    unseen: dict[str, int] = field(default_factory=dict)
    """Reads for which a resource is not visible yet, by lower-case id."""
    providers: dict[str, str] = field(default_factory=dict)
    """registrationState by namespace."""
    parts: dict[str, Any] = field(default_factory=dict)
    """What plugins keep: parts["compute"], parts["siterecovery"]..."""
    gone: dict[str, Callable[[Resource], None]] = field(default_factory=dict)
    """What a provider does when a resource of a type (lower case) disappears with its group."""
    nic_reservation: int = 0
    """How many deletions of a network interface are refused after the creation of its machine has failed: Azure keeps
    it for that machine for 180 seconds."""
    reserved_nics: dict[str, int] = field(default_factory=dict)
    """Refusals that are left, by the lower-case id of the interface."""
    on_begin: list[Callable[[], None]] = field(default_factory=list)
    on_stop: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._own: tempfile.TemporaryDirectory[str] | None = None
        if self.directory is None:
            self._own = tempfile.TemporaryDirectory(prefix="azuresim-")
            self.directory = Path(self._own.name)
        self.ca_bundle, self.tls = tls.make(self.directory)
        self.server = Server(type("Bound", (ArmConnection,), {"sim": self}), self.tls)
        self.endpoint = self.authority_url = self.server.url
        self.tokens = Tokens(
            self.tenant, {self.endpoint, "https://management.azure.com", "https://management.core.windows.net"}
        )
        self.me = self.principal(CLIENT, "secret-of-the-simulator")
        self.grant(self.me, "*")
        self.admin = self.principal("seeding")
        self.grant(self.admin, "*")
        for plugin in default_plugins() if self.plugins is None else self.plugins:
            plugin(self)

    def __enter__(self) -> Self:
        self.server.thread.start()
        for begin in self.on_begin:
            begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.server.stop()
        for stop in reversed(self.on_stop):
            stop()
        if self._own is not None:
            self._own.cleanup()
        if self.bugs and kind is None:
            raise AssertionError("the simulator made mistakes:\n" + "\n".join(self.bugs))

    # who may come in

    @property
    def authority(self) -> str:
        """Host and port of the token endpoint, as azure-identity's `authority` takes it."""
        return self.authority_url.removeprefix("https://")

    def principal(self, client_id: str, secret: str = "") -> Principal:
        """A service principal that may log in; grant it something."""
        made = Principal(client_id, f"object-of-{client_id}", secret)
        self.tokens.principals[client_id] = made
        return made

    def grant(self, who: Principal, *actions: str, scope: str = "", **more: tuple[str, ...]) -> Grant:
        """A role assignment at `scope` (default: the subscription and everything above it)."""
        made = Grant(who.client_id, scope, actions, **more)
        self.roles.grants.append(made)
        return made

    def credential(self, who: Principal | None = None) -> Credential:
        who = who or self.me
        return Credential(self.tenant, who.client_id, who.secret, self.authority)

    def managed_identity(self, who: Principal | None = None) -> dict[str, str]:
        """Environment variables under which azure-identity's ManagedIdentityCredential is `who`."""
        secret = f"header-of-{(who or self.me).client_id}"
        self.tokens.managed[secret] = who or self.me
        return {"IDENTITY_ENDPOINT": f"{self.endpoint}/msi/token", "IDENTITY_HEADER": secret}

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for any management client of the SDKs, so that it speaks to this simulator."""
        return {
            "base_url": self.endpoint, "credential_scopes": [f"{self.endpoint}/.default"],
            "connection_verify": str(self.ca_bundle), "polling_interval": 0,
        }  # fmt: skip

    # pace

    @property
    def pace(self) -> Pace:
        return self.operations.pace

    def settle(self) -> None:
        """End every operation that is under way."""
        with self.lock:
            self.operations.settle()

    # state

    def registered(self, namespace: str) -> bool:
        state = {name.lower(): state for name, state in self.providers.items()}.get(namespace.lower(), "Registered")
        return state == "Registered"

    def group(self, name: str, location: str = "", tags: dict[str, str] | None = None) -> str:
        """Make a resource group; gives its id."""
        group_id = f"/subscriptions/{self.subscription}/resourceGroups/{name}"
        body = {
            "id": group_id, "name": name, "type": "Microsoft.Resources/resourceGroups",
            "location": location or self.region,
            "properties": {"provisioningState": "Succeeded"}, **({"tags": tags} if tags else {}),
        }  # fmt: skip
        self.store.put(Resource(group_id, "Microsoft.Resources/resourceGroups", body))
        return group_id

    def check_location(self, location: str, kind: str) -> str:
        """The region's name as Azure writes it. Raises ArmError `LocationNotAvailableForResourceType` (source: ARM's
        common deployment errors) for one that is not simulated."""
        name = location.lower().replace(" ", "")
        if name not in (self.region, *self.other_regions):
            raise ArmError(
                400, "LocationNotAvailableForResourceType", f"The provided location '{location}' is not available for "
                f"resource type '{kind}'. List of available regions for the resource type is "
                f"'{','.join((self.region, *self.other_regions))}'.",
            )  # fmt: skip
        return name

    def seed(self, method: str, path: str, body: Any = None) -> Any:
        """Do a call from within: models and rules hold, rights, faults, pace and records do not count. Gives the result
        of the operation when there is one, otherwise the answer's body. Raises ArmError."""
        with self.lock:
            route, args = self.arm.find(method, path)
            version = self.arm.supported(route)[-1]
            content = strict.read(route.body, body) if body is not None else None
            done = route.handler(Call(self, route, method, path, args, {}, {}, version, self.admin, content))
            return done.finish() if isinstance(done, Later) else done.body

    def reset(self) -> None:
        """Forget resources, calls, plans and operations; principals and their tokens, and what plugins keep, stay."""
        with self.lock:
            self.store.found.clear()
            self.operations.all.clear()
            self.operations.running.clear()
            self.operations.by_path.clear()
            self.calls.clear()
            self.unseen.clear()
            self.faults.clear()
            self.faults.struck.clear()

    # what happened

    def record(self, plane: str, asked: Asked, who: Principal | None, status: int) -> None:
        """Remember a call. Requests to the token endpoint and data are kept without their bodies."""
        version = asked.query.get("api-version", asked.headers.get("x-ms-version", ""))
        agent, client = asked.headers.get("User-Agent", ""), who.client_id if who else ""
        made = Record(plane, asked.method, asked.path, version, client, status, dict(asked.query), agent, asked.raw)
        self.calls.append(made)


def default_plugins() -> list[Callable[[AzureSim], None]]:
    from tests.azuresim import authorization, blobs, compute, network, resources, storage

    return [resources.plug, authorization.plug, network.plug, storage.plug, compute.plug, blobs.plug]
