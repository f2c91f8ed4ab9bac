"""Turns the sample manifests into the demo's: the same files with this machine's addresses, keys and rhythm."""

from __future__ import annotations

import base64
import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from farshore_cli.dev.checkout import checkout

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Here:
    """What the samples cannot know.

    Attributes:
        addresses: private addresses of the source machines by name; each becomes a copy of the sample's machine.
        private_key: its SSH private key, text.
        account_url, account_key: the storage account.
        container: the vault's container.
        interval: how often a crash-consistent point is taken, such as `10s`.
    """

    addresses: Mapping[str, str]
    private_key: str
    account_url: str
    account_key: str
    container: str
    interval: str


def samples() -> list[Manifest]:
    """Return the objects of `manifests/samples/`, in the order of the files' names."""
    files = sorted((checkout() / "manifests" / "samples").glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


def adapted(objects: Iterable[Manifest], here: Here) -> list[Manifest]:
    """Return the samples with the values of this machine."""
    return [adapted for one in objects for adapted in _adapt(copy.deepcopy(one), here)]


def write(objects: Iterable[Manifest], path: Path) -> str:
    """Write manifests to a file a person can read and return the text."""
    text = yaml.safe_dump_all(list(objects), sort_keys=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return text


def _adapt(found: Manifest, here: Here) -> list[Manifest]:
    kind = found["kind"]
    if kind == "ProtectedVM":
        return [_machine(found, name, address) for name, address in here.addresses.items()]
    if kind == "FailoverPlan":
        # One group for each machine, the last one first: databases are there before what asks them.
        names = reversed(list(here.addresses))
        found["spec"]["groups"] = [{"name": name, "members": [{"name": name}]} for name in names]
    if kind == "RecoveryVault":
        found["spec"]["storage"]["azureBlob"] |= {"accountURL": here.account_url, "container": here.container}
    elif kind == "ReplicationPolicy":
        found["spec"]["crashConsistentInterval"] = here.interval
        found["spec"].pop("appConsistentInterval", None)
    elif kind == "Secret":
        found.pop("stringData", None)
        found["data"] = {key: _encoded(value) for key, value in _secret(found["metadata"]["name"], here).items()}
    return [found]


def _machine(sample: Manifest, name: str, address: str) -> Manifest:
    found = copy.deepcopy(sample)
    found["metadata"]["name"] = name
    found["spec"]["source"]["address"] = address
    return found


def _secret(name: str, here: Here) -> Mapping[str, bytes]:
    """Return the content of one of the samples' Secrets, told apart by what its name ends with."""
    if name.endswith("ssh"):
        return {"username": b"root", "privateKey": here.private_key.encode()}
    if name.endswith("storage"):
        return {"accountKey": here.account_key.encode()}
    return {"key": os.urandom(32)}


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()
