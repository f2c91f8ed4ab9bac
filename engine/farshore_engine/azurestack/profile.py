"""The API versions of profile 2020-09-01-hybrid: a Hub knows none that are newer, and current SDKs send only those.

Source: `profile/2020-09-01-hybrid.json` of github.com/Azure/azure-rest-api-specs.
"""

from __future__ import annotations

NAME = "2020-09-01-hybrid"
METADATA = "2015-01-01"
"""Version of `/metadata/endpoints`, which needs no token. Source: "Make API requests to Azure Stack Hub"."""
BLOBS = "2019-07-07"
"""Version of the Blob service (`data-plane`, microsoft.storage)."""
VERSIONS = {
    "microsoft.authorization/permissions": "2015-07-01",
    "microsoft.compute/availabilitysets": "2020-06-01",
    "microsoft.compute/disks": "2019-07-01",
    "microsoft.compute/locations": "2020-06-01",
    "microsoft.compute/virtualmachines": "2020-06-01",
    "microsoft.network/networkinterfaces": "2018-11-01",
    "microsoft.network/virtualnetworks": "2018-11-01",
    "microsoft.resources/resourcegroups": "2019-10-01",
    "microsoft.resources/subscriptions": "2016-06-01",
    "microsoft.storage/storageaccounts": "2019-06-01",
}
"""Version by resource type, in lower case."""


def version_of(path: str) -> str:
    """Return the API version for the path of a resource, a list or an action below Resource Manager's root.

    Raises:
        KeyError: the product calls nothing of that type.
    """
    segments = path.strip("/").lower().split("/")
    if "providers" in segments:
        at = segments.index("providers")
        return VERSIONS["/".join(segments[at + 1 : at + 3])]
    inner = "resourcegroups" if "resourcegroups" in segments else "subscriptions"
    return VERSIONS[f"microsoft.resources/{inner}"]
