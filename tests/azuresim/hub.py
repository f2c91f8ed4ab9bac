"""The simulator as an Azure Stack Hub: old API versions, metadata for discovery, tokens of Entra ID or of AD FS.

Sources: profile 2020-09-01-hybrid of the REST specification; "Make API requests to Azure Stack Hub" (metadata, an
audience that is not the endpoint); "Azure Stack Hub VM features" (generation 1 only, a subset of sizes, no instance
metadata); "Azure Stack Hub managed disks: differences and considerations" (disk types, sizes, API versions).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.identity import Tokens
from tests.azuresim.arm.registry import Route
from tests.azuresim.compute.state import compute
from tests.azuresim.sim import TENANT, AzureSim

REGION = "local"
AUDIENCE = "https://management.contoso.onmicrosoft.com/4de154de-f8a8-4017-af41-df619da68155"
VERSIONS = {
    "Microsoft.Authorization": ("2015-07-01",),
    "Microsoft.Compute": ("2017-12-01", "2019-07-01", "2020-06-01"),
    "Microsoft.Compute/disks": ("2017-03-30", "2018-06-01", "2018-09-30", "2019-03-01", "2019-07-01"),
    "Microsoft.Network": ("2017-10-01", "2018-11-01"),
    "Microsoft.Resources/metadata": ("2015-01-01",),
    "Microsoft.Resources": ("2016-06-01", "2018-05-01", "2019-10-01"),
    "Microsoft.Storage": ("2017-10-01", "2019-06-01"),
}
LATER = {
    "deleteOption": "2021-03-01", "diskControllerType": "2022-08-01", "securityProfile": "2020-12-01",
    "userData": "2021-03-01", "publicNetworkAccess": "2021-04-01",
}  # fmt: skip
"""Properties of machines and disks, and the API version that brought each: an older one does not know them. That they
are refused, rather than overlooked, is [inf]."""
DISK_TYPES = {"Standard_LRS", "Premium_LRS"}
MOST_GIB = 1023
SIZES = ("standard_a1_v2", "standard_a0", "standard_d1_v2", "standard_d2_v2", "standard_ds3_v2", "standard_ds1_v2")


class HubTokens(Tokens):
    """A token service of one kind: AD FS answers below /adfs only, Entra ID below its tenants."""

    adfs = False

    def is_mine(self, path: str) -> bool:
        first = path.strip("/").split("/")[0].lower()
        return first == "adfs" if self.adfs else first in (self.tenant, "common", "organizations")


@contextmanager
def hub(*, adfs: bool = False, **options: Any) -> Iterator[AzureSim]:
    """A Hub that runs; `sim.identity` says which identity system it has: ADFS or AzureAD."""
    sim = AzureSim(region=REGION, other_regions=(), **options)
    become(sim, adfs=adfs)
    with sim:
        yield sim


def become(sim: AzureSim, *, adfs: bool = False) -> None:
    """Turn a simulator that was just made into a Hub."""
    tokens = HubTokens(TENANT, {AUDIENCE}, sim.tokens.principals)
    tokens.adfs = adfs
    sim.tokens = tokens
    for kind, versions in VERSIONS.items():
        sim.arm.limit(kind, versions)
    sim.arm.routes[:] = [_old(route) for route in sim.arm.routes]
    login = sim.endpoint + ("/adfs" if adfs else "/")
    found = {
        "galleryEndpoint": f"{sim.endpoint}/gallery/", "graphEndpoint": f"{sim.endpoint}/graph/",
        "portalEndpoint": f"{sim.endpoint}/portal/",
        "authentication": {"loginEndpoint": login, "audiences": [AUDIENCE]},
    }  # fmt: skip
    sim.arm.add([Route("GET", "/metadata/endpoints", lambda _: Reply(found), ("2015-01-01",), anonymous=True)])
    state = compute(sim)
    state.disk_types = set(DISK_TYPES)
    state.sizes = {name: replace(state.sizes[name], generations="V1", zones=()) for name in SIZES}


def _old(route: Route) -> Route:
    """A route that shows and takes nothing that came after the profile."""
    if not route.namespace.lower().startswith("microsoft.compute"):
        return route

    def handler(call: Call) -> Reply | Later:
        newer = sorted(set(_names(call.body)) & set(LATER))
        if newer:
            raise ArmError(
                400, "InvalidRequestContent", f"The request content was invalid and could not be deserialized: 'Could "
                f"not find member '{newer[0]}' on object of type 'ResourceDefinition'.'",
            )  # fmt: skip
        _check_disk(call)
        done = route.handler(call)
        return replace(done, body=_without(copy.deepcopy(done.body))) if isinstance(done, Reply) else done

    return replace(route, handler=handler)


def _check_disk(call: Call) -> None:
    if call.route.kind.lower() != "microsoft.compute/disks" or call.method != "PUT":
        return
    properties = (call.body or {}).get("properties") or {}
    if properties.get("hyperVGeneration") not in (None, "V1"):
        raise ArmError(400, "InvalidParameter", "Only generation 1 is supported.", target="hyperVGeneration")  # [inf]
    if int(properties.get("diskSizeGB") or 0) > MOST_GIB:
        raise ArmError(
            400, "InvalidParameter", f"The value '{properties['diskSizeGB']}' of parameter 'disk.diskSizeGB' is out of "
            f"range. The value must be between '1' and '{MOST_GIB}', inclusive.", target="disk.diskSizeGB",
        )  # fmt: skip


def _names(body: Any) -> Iterator[str]:
    if isinstance(body, dict):
        for name, value in body.items():
            if value is not None:
                yield name
            yield from _names(value)
    elif isinstance(body, list):
        for one in body:
            yield from _names(one)


def _without(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: _without(value) for name, value in body.items() if name not in LATER}
    return [_without(one) for one in body] if isinstance(body, list) else body
