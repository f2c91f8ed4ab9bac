"""The machines of an Azure Stack Hub beside what protects them, and manifests for those that nothing protects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from farshore_engine.azurestack.machine import GIB, Machine
from farshore_engine.azurestack.support import examine
from farshore_engine.contract.replication import Check, CheckResult
from farshore_operator.api import ProcessServer, ProtectedVM, Site

if TYPE_CHECKING:
    from rich.console import Group

OPEN = "change-me"
"""Stands in a manifest for the name of an object that could not be chosen."""
NAME_LENGTH = 63


@dataclass(frozen=True)
class Found:
    """A machine of the Hub.

    Attributes:
        protected_by: name of its ProtectedVM, empty if it has none.
        process_server: name of the process server that it is, empty for other machines.
        checks: what the Hub knows of whether it can be protected.
    """

    machine: Machine
    protected_by: str
    process_server: str
    checks: tuple[Check, ...]

    @property
    def unprotected(self) -> bool:
        """Whether nothing protects it, though it is no part of Farshore."""
        return not self.protected_by and not self.process_server


@dataclass(frozen=True)
class Discovery:
    """What a Hub has. `lost` are ProtectedVMs of the site, by name, of which it has no machine."""

    site: str
    found: tuple[Found, ...]
    lost: tuple[str, ...]

    @property
    def unprotected(self) -> tuple[Found, ...]:
        """The machines that nothing protects."""
        return tuple(one for one in self.found if one.unprotected)


@dataclass(frozen=True)
class Choices:
    """What manifests name; `OPEN` where it is left to the reader."""

    namespace: str
    policy: str = OPEN
    vault: str = OPEN
    target: str = OPEN
    login: bool = False
    """Whether the site has a login for its machines, so that a manifest needs none."""


def compare(
    site: str, machines: Sequence[Machine], vms: Sequence[ProtectedVM], servers: Sequence[ProcessServer]
) -> Discovery:
    """Match machines with what protects them: by private address, else by the name at the provider."""
    mine = [vm for vm in vms if vm.spec.source.site_ref.name == site]
    own = [server for server in servers if server.spec.site_ref.name == site]
    found, known = [], set()
    for machine in machines:
        vm = next((vm for vm in mine if vm.spec.source.address in machine.addresses), None)
        vm = vm or next((vm for vm in mine if _name_of(vm).lower() == machine.name.lower()), None)
        server = next(
            (one for one in own if one.status.appliance and one.status.appliance.address in machine.addresses), None
        )
        if vm is not None:
            known.add(vm.metadata.name)
        name = vm.metadata.name if vm is not None else ""
        found.append(Found(machine, name, server.metadata.name if server is not None else "", examine(machine)))
    lost = sorted(vm.metadata.name for vm in mine if vm.metadata.name not in known)
    return Discovery(site, tuple(found), tuple(lost))


def choose(namespace: str, site: Site, others: Mapping[str, Sequence[str]], wished: Mapping[str, str]) -> Choices:
    """Return what manifests name: what is wished, else the only one that there is.

    Args:
        others: names of what there is: policy, vault, target.
        wished: the same, from the command line; empty for no wish.
    """
    chosen = {}
    for what, names in others.items():
        chosen[what] = wished.get(what) or (names[0] if len(names) == 1 else OPEN)
    return Choices(namespace, **chosen, login=site.spec.credentials_secret_ref is not None)


def page(discovery: Discovery) -> Group:
    """Return a table for people, and what to do."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("MACHINE", "GROUP", "PRIVATE IP", "SYSTEM", "DISKS", "STATE", "PROTECTED BY", box=None)
    for one in discovery.found:
        table.add_row(*_row(one))
        for check in one.checks:
            if one.unprotected and check.result in (CheckResult.ERROR, CheckResult.WARNING):
                table.add_row("", "", Text(f"{check.message}: {check.remedy}", style="yellow"))
    lines: list[Any] = [table]
    if discovery.lost:
        text = f"the Hub has no machine for ProtectedVM {', '.join(discovery.lost)}: correct its address or machine"
        lines.append(Text(text, style="red"))
    count = len(discovery.unprotected)
    names = ", ".join(one.machine.name for one in discovery.unprotected)
    lines.append(Text(f"{count} of {len(discovery.found)} machines are not protected: {names}" if count else _ALL))
    return Group(*lines)


_ALL = "every machine of the Hub is protected"


def as_json(discovery: Discovery) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "site": discovery.site,
        "machines": [_json(one) for one in discovery.found],
        "unprotected": [one.machine.name for one in discovery.unprotected],
        "withoutMachine": list(discovery.lost),
    }


def manifests(discovery: Discovery, choices: Choices, taken: Sequence[str]) -> dict[str, str]:
    """Return a ProtectedVM for each machine that nothing protects, by the name of its file.

    Args:
        taken: names of ProtectedVMs that there are already.
    """
    names, made = set(taken), {}
    for one in discovery.unprotected:
        name = _kube_name(one.machine.name)
        if name in names:
            name = _kube_name(f"{one.machine.name}-{one.machine.resource_group}")
        names.add(name)
        made[f"{name}.yaml"] = manifest(one, name, discovery.site, choices)
    return made


def manifest(found: Found, name: str, site: str, choices: Choices) -> str:
    """Return the ProtectedVM of one machine, with comments that say what to fill in."""
    machine = found.machine
    disks = ", ".join(f"{disk.name} {disk.size_bytes // GIB} GiB" for disk in machine.disks)
    lines = [
        f"# {machine.name} in resource group {machine.resource_group}: {machine.size}, {_system(machine)}, {disks}.",
        *(f"# {check.result}: {check.message}. {check.remedy}." for check in found.checks if _bad(check)),
        "apiVersion: farshore.dev/v1alpha1",
        "kind: ProtectedVM",
        "metadata:",
        f"  name: {name}",
        f"  namespace: {choices.namespace}",
        "spec:",
        "  source:",
        "    siteRef:",
        f"      name: {site}",
        f"    address: {(*machine.addresses, OPEN)[0]}{_open(not machine.addresses, 'its private IP address')}",
        *([f"    machine: {machine.name}"] if machine.name != name else []),
        *(["    osType: windows  # needs a vault of engine siteRecovery"] if machine.os_type == "windows" else []),
        *_login(choices),
        "  policyRef:",
        f"    name: {choices.policy}{_open(choices.policy == OPEN, 'a ReplicationPolicy')}",
        "  vaultRef:",
        f"    name: {choices.vault}{_open(choices.vault == OPEN, 'a RecoveryVault')}",
        "  target:",
        "    siteRef:",
        f"      name: {choices.target}{_open(choices.target == OPEN, 'the Site where it is recovered')}",
        "    # size, network, subnet and privateIP: those of the site's defaults, unless they are set here",
    ]
    return "\n".join(lines) + "\n"


def _login(choices: Choices) -> list[str]:
    if choices.login:
        return ["    # credentialsSecretRef: the site's login, unless one is named here"]
    return [
        "    credentialsSecretRef:",
        f"      name: {OPEN}{_open(True, 'a Secret with username and privateKey or password')}",
    ]


def _open(missing: bool, what: str) -> str:
    return f"  # fill in: {what}" if missing else ""


def _bad(check: Check) -> bool:
    return check.result in (CheckResult.ERROR, CheckResult.WARNING)


def _name_of(vm: ProtectedVM) -> str:
    return vm.spec.source.machine or vm.metadata.name


def _kube_name(name: str) -> str:
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return found[:NAME_LENGTH].strip("-") or "machine"


def _system(machine: Machine) -> str:
    return " ".join(one for one in (machine.os_name, machine.os_version) if one) or machine.os_type or "unknown system"


def _row(one: Found) -> tuple[str, ...]:
    machine = one.machine
    disks = f"{len(machine.disks)}, {sum(disk.size_bytes for disk in machine.disks) // GIB} GiB"
    by = one.protected_by or (f"process server {one.process_server}" if one.process_server else "nothing")
    return (
        machine.name, machine.resource_group, ", ".join(machine.addresses) or "none", _system(machine), disks,
        machine.power.value, by,
    )  # fmt: skip


def _json(one: Found) -> dict[str, Any]:
    machine = one.machine
    return {
        "name": machine.name,
        "id": machine.id,
        "resourceGroup": machine.resource_group,
        "privateAddresses": list(machine.addresses),
        "size": machine.size,
        "osType": machine.os_type,
        "os": _system(machine),
        "state": machine.power.value,
        "disks": [
            {"name": disk.name, "lun": None if disk.system else disk.lun, "bytes": disk.size_bytes}
            for disk in machine.disks
        ],
        "protectedBy": one.protected_by or None,
        "processServer": one.process_server or None,
        "checks": [check.model_dump(mode="json", by_alias=True) for check in one.checks],
    }
