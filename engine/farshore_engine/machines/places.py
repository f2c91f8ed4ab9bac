"""Where a guest that boots its own disk will be in a network of this host: its disks are prepared for it beforehand.

The place is noted beside the disks, from before they are prepared until they are removed, so that no other guest gets
the same address, and the machine is started where its disks expect it to be.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.network import LAST_PORT_ADDRESS, Network, network_lock

FILE = "place.json"


def reserve(network: Network, machines_dir: Path, machine: str, wanted: str = "") -> str:
    """Return the machine's address in a network, with its prefix length; the same one when asked again.

    Args:
        network: network that the machine joins.
        machines_dir: directory with a directory for each machine's disks; this machine's must be there.
        machine: name of the machine.
        wanted: address in CIDR notation that it must have; empty for a free one.

    Raises:
        StopFault: the address cannot be had, or none is free.
    """
    with network_lock():
        taken = {
            ipaddress.IPv4Interface(address)
            for note in machines_dir.glob(f"*/{FILE}")
            if note.parent.name != machine and (address := _noted(note, network.name))
        }
        found = _address(network, machine, taken, wanted or _noted(machines_dir / machine / FILE, network.name))
        (machines_dir / machine / FILE).write_text(json.dumps({"network": network.name, "address": str(found)}))
    return str(found)


def reserved(disks: Path, network: str) -> str:
    """Return the address that the disks in a directory were prepared for in a network, "" for none."""
    return _noted(disks / FILE, network)


def release(disks: Path) -> None:
    """Forget the place of the machine whose disks are in a directory."""
    (disks / FILE).unlink(missing_ok=True)


def _address(
    network: Network, machine: str, taken: set[ipaddress.IPv4Interface], wanted: str
) -> ipaddress.IPv4Interface:
    guest = _parsed(wanted) if wanted else None
    host = network.planned(guest)
    if guest is not None:
        if guest in taken:
            raise _none_free(f"the address {guest} is another machine's")
        return guest
    hosts = list(host.network.hosts())[LAST_PORT_ADDRESS:]
    first = int.from_bytes(hashlib.blake2b(machine.encode(), digest_size=4).digest()) % len(hosts)
    for candidate in hosts[first:] + hosts[:first]:
        found = ipaddress.IPv4Interface(f"{candidate}/{host.network.prefixlen}")
        if found not in taken:
            return found
    raise _none_free(f"the network {network.name} has no free address")


def _parsed(text: str) -> ipaddress.IPv4Interface:
    try:
        return ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise StopFault(
            f"{text} is no IPv4 address", "Correct spec.target.privateIP", reason="AddressNotPossible"
        ) from error


def _none_free(what: str) -> StopFault:
    return StopFault(what, "Stop a machine, or use another address or network", reason="AddressNotPossible")


def _noted(note: Path, network: str) -> str:
    try:
        found = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return ""
    return str(found["address"]) if found.get("network") == network else ""
