"""Whether a Hub's machine can be protected and recovered, from what the Hub knows of it: state, system, disks.

The agent's own preflight asks the machine itself, over SSH. This asks before there is a login, and says all at once.
Sources: the table "Verify the operating system" of "Replicate Azure Stack VMs to Azure", for Site Recovery; the limits
of the recovered machine of "Support matrix for disaster recovery of physical servers" (OS disk, number of disks).
"""

from __future__ import annotations

import ipaddress
import re

from farshore_engine.azurestack.machine import GIB, Machine, PowerState
from farshore_engine.contract.replication import Check, CheckResult

MOST_DATA_DISKS = 64
LARGEST_SYSTEM_DISK = 2048 * GIB
"""Bytes. A Hub's machines are of generation 1."""
WINDOWS = re.compile(r"windows server (2008 r2|2012( r2)?|2016|2019)\b", re.IGNORECASE)
LINUX = {"centos": ((5, 2, 11), (6, 1, 9), (7, 0, 3)), "ubuntu": ((14, 4, 4), (16, 4, 4))}
"""(major, lowest minor, highest minor) that the table lists."""


def examine(machine: Machine, *, site_recovery: bool = False) -> tuple[Check, ...]:
    """Return the checklist of a machine: for the native engine, or, `site_recovery`, for Azure Site Recovery."""
    system = _site_recovery_system(machine) if site_recovery else _native_system(machine)
    return (_state(machine), system, _address(machine), _disks(machine))


def _state(machine: Machine) -> Check:
    name = "MachineState"
    if machine.provisioning.lower() == "failed":
        return _error(name, f"its last change at the Hub failed, and it is {machine.power}", "Repair it in the portal")
    if machine.power is not PowerState.RUNNING:
        return _error(name, f"it is {machine.power}", "Start it: the agent is installed in the running machine")
    return _passed(name, f"it is {machine.power}")


def _native_system(machine: Machine) -> Check:
    name, system = "OperatingSystem", _system(machine)
    if machine.os_type == "windows":
        remedy = "Protect it with a vault of engine siteRecovery: the agent of Farshore runs on Linux"
        return _error(name, f"it runs {system}", remedy)
    if machine.os_type != "linux":
        return _warning(name, "the Hub does not say what it runs", "Check it by preflight: `farshore doctor`")
    return _passed(name, f"it runs {system}; preflight checks its kernel")


def _site_recovery_system(machine: Machine) -> Check:
    name, system = "OperatingSystem", _system(machine)
    if not machine.os_name:
        remedy = "Compare it with the table yourself, or install the VM agent, which tells the Hub"
        return _warning(name, "its VM agent does not say which system it runs", remedy)
    if _listed(machine.os_name, machine.os_version):
        return _passed(name, f"it runs {system}")
    return _warning(
        name,
        f"it runs {system}, which the table of Azure Stack machines does not list",
        "Check Microsoft's current support matrix for physical servers, which lists newer systems",
    )


def _listed(name: str, version: str) -> bool:
    if WINDOWS.search(f"{name} {version}"):
        return True
    ranges = LINUX.get(name.lower().split()[0], ())
    numbers = [int(one) for one in re.findall(r"\d+", version)[:2]]
    major, minor = (*numbers, 0, 0)[:2]
    return any(major == wanted and low <= minor <= high for wanted, low, high in ranges)


def _address(machine: Machine) -> Check:
    name = "PrivateAddress"
    if not machine.addresses:
        return _error(name, "it has no private IP address", "Attach a network interface")
    first = ipaddress.ip_address(machine.addresses[0])
    if not first.is_private:
        return _warning(name, f"{first} is not private", "Use the private address: replication may not work otherwise")
    return _passed(name, f"it is reached at {first}")


def _disks(machine: Machine) -> Check:
    name, data = "Disks", [one for one in machine.disks if not one.system]
    largest = max((one.size_bytes for one in machine.disks if one.system), default=0)
    if len(data) > MOST_DATA_DISKS:
        remedy = "Leave some out: spec.source.disks.exclude"
        return _error(name, f"it has {len(data)} data disks, and a recovered machine at most {MOST_DATA_DISKS}", remedy)
    if largest > LARGEST_SYSTEM_DISK:
        return _error(name, f"its system disk has {largest // GIB} GiB, and 2048 GiB is the most", "Make it smaller")
    kind = "managed" if machine.managed else "unmanaged"
    return _passed(name, f"{len(machine.disks)} {kind} disks")


def _system(machine: Machine) -> str:
    return " ".join(one for one in (machine.os_name, machine.os_version) if one) or machine.os_type or "nothing known"


def _passed(name: str, message: str) -> Check:
    return Check(name=name, result=CheckResult.PASSED, message=message)


def _warning(name: str, message: str, remedy: str) -> Check:
    return Check(name=name, result=CheckResult.WARNING, message=message, remedy=remedy)


def _error(name: str, message: str, remedy: str) -> Check:
    return Check(name=name, result=CheckResult.ERROR, message=message, remedy=remedy)
