"""A network of machines on this host: a Linux bridge with a /24 of its own and an end of it in each machine.

It is isolated: machines have no route out, the host does not forward for the bridge, and the host keeps the first
address so that it can probe what runs there. What exists is read from the kernel, never from a file, so a killed
creator leaves nothing that the next call cannot find.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines.commands import attempt, run, run_json

LOCK_FILE = Path("/run/lock/farshore-network.lock")
NETNS_DIRECTORY = Path("/run/netns")
# 10.160.0.0 to 10.223.255.0: clear of the usual 10.0-10.100 of sites, of 10.96/12 and 10.244/16 of Kubernetes.
SECOND_OCTETS = range(160, 224)

# Ports take addresses up to this one of their /24; those above are for guests, which choose theirs themselves.
LAST_PORT_ADDRESS = 199


def short_name(prefix: str, *parts: str) -> str:
    """A name for the kernel (interfaces have at most 15 characters) that the same parts always give again."""
    return prefix + hashlib.blake2b("\0".join(parts).encode(), digest_size=5).hexdigest()


@contextmanager
def network_lock() -> Iterator[None]:
    """Hold this host's networks still: choosing a free subnet or address and taking it must be one step."""
    LOCK_FILE.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Network:
    """One bridge of this host.

    Args:
        scope: what sets this network's name apart from the same name elsewhere (the runtime's run directory).
        name: the name in the manifests.
    """

    scope: str
    name: str

    @property
    def bridge(self) -> str:
        """The bridge's interface name."""
        return short_name("fsb", self.scope, self.name)

    def subnet(self) -> ipaddress.IPv4Interface | None:
        """The host's address on the bridge, with its prefix; None if the bridge is not there or not finished."""
        return _interface_address(["ip", "-json", "-4", "addr", "show", "dev", self.bridge])

    def planned(self, guest: ipaddress.IPv4Interface | None = None) -> ipaddress.IPv4Interface:
        """Return the host's address on the bridge: the one that it has, or the one that it would get.

        Args:
            guest: address of a guest that cannot be given another one.

        Raises:
            StopFault: the guest's address does not belong to the bridge, or to a range that is in use here.
        """
        found = self.subnet()
        if guest is None:
            return found or ipaddress.IPv4Interface(f"{_free_subnet(self.bridge)[1]}/24")
        if found is None and not _in_use(guest.network):
            host = next(one for one in guest.network.hosts() if one != guest.ip)
            return ipaddress.IPv4Interface(f"{host}/{guest.network.prefixlen}")
        if found is not None and found.network == guest.network and found.ip != guest.ip:
            return found
        where = f"has {found}" if found is not None else "cannot have that range, which is in use on this host"
        raise StopFault(
            f"the address {guest} cannot be had in the network {self.name}, which {where}",
            "Choose another address (spec.target.privateIP) or network, or leave the address out",
            reason="AddressNotPossible",
        )

    def ensure(self, guest: ipaddress.IPv4Interface | None = None) -> ipaddress.IPv4Interface:
        """Create the bridge unless it is there; gives the host's address on it. Call it under `network_lock`.

        `guest` and faults are as for `planned`.
        """
        found = self.planned(guest)
        if self.subnet() is None:
            attempt(["ip", "link", "add", self.bridge, "type", "bridge"])
            run(["ip", "addr", "add", str(found), "dev", self.bridge])
        for switch, value in (("ipv4/conf/{}/forwarding", "0"), ("ipv6/conf/{}/disable_ipv6", "1")):
            path = Path("/proc/sys/net") / switch.format(self.bridge)
            if path.exists():
                path.write_text(value)
        run(["ip", "link", "set", self.bridge, "up"])
        return found

    def ports(self) -> list[str]:
        """The interfaces that are plugged into the bridge."""
        code, output, _ = attempt(["ip", "-o", "link", "show", "master", self.bridge])
        return [line.split(": ")[1].partition("@")[0] for line in output.splitlines()] if code == 0 else []

    def remove_if_unused(self) -> bool:
        """Remove the bridge when nothing is plugged in; True when it is gone. Call it under `network_lock`."""
        if self.ports():
            return False
        attempt(["ip", "link", "del", self.bridge])
        return not link_exists(self.bridge)


@dataclass(frozen=True)
class Port:
    """A machine's place in a network: a network namespace with `eth0`, and its peer in the bridge."""

    network: Network
    machine: str

    @property
    def netns(self) -> str:
        """Name of the network namespace, as `ip netns` knows it."""
        return short_name("fs-", self.network.scope, self.machine)

    @property
    def veth(self) -> str:
        """Name of the host's end of the cable."""
        return short_name("fsv", self.network.scope, self.machine)

    def address(self) -> str | None:
        """The machine's address; None if the port is not there or not finished."""
        if self.netns not in namespaces():
            return None
        found = _interface_address(["ip", "-n", self.netns, "-json", "-4", "addr", "show", "dev", "eth0"])
        return str(found.ip) if found else None

    def plug(self, extra_addresses: tuple[str, ...] = ()) -> str:
        """Bring the port up from whatever state it is in; gives the machine's address.

        Args:
            extra_addresses: further addresses (/32) of the machine, which the host reaches through the bridge.
        """
        with network_lock():
            host = self.network.ensure()
            if self.address() is None or not link_exists(self.veth):
                self._pull()
                address = self._free_address(host)
                run(["ip", "netns", "add", self.netns])
                peer = ["peer", "name", "eth0", "netns", self.netns]
                run(["ip", "link", "add", self.veth, "master", self.network.bridge, "type", "veth", *peer])
                run(["ip", "-n", self.netns, "addr", "add", f"{address}/24", "dev", "eth0"])
            for extra in extra_addresses:
                run(["ip", "-n", self.netns, "addr", "replace", f"{extra}/32", "dev", "eth0"])
                run(["ip", "route", "replace", f"{extra}/32", "dev", self.network.bridge])
            run(["ip", "link", "set", self.veth, "up"])
            run(["ip", "-n", self.netns, "link", "set", "eth0", "up"])
            run(["ip", "-n", self.netns, "link", "set", "lo", "up"])
        address_now = self.address()
        if address_now is None:
            raise StopFault(
                f"the network namespace {self.netns} lost its address",
                "Stop the machine and start it again",
                reason="NetworkLost",
            )
        return address_now

    def unplug(self) -> list[str]:
        """Remove the port, and the bridge if it was the last; gives the names of what is still there."""
        with network_lock():
            self._pull()
            self.network.remove_if_unused()
        return [
            *([f"network namespace {self.netns}"] if self.netns in namespaces() else []),
            *([f"interface {self.veth}"] if link_exists(self.veth) else []),
        ]

    def pids(self) -> list[int]:
        """The processes of this host that live in the network namespace, the machine's own and those that entered."""
        if self.netns not in namespaces():
            return []
        code, output, _ = attempt(["ip", "netns", "pids", self.netns])
        return [int(word) for word in output.split()] if code == 0 else []

    def _pull(self) -> None:
        # The cable first: a namespace that a process still holds keeps its end of the cable otherwise.
        if link_exists(self.veth):
            attempt(["ip", "link", "del", self.veth])
        if (NETNS_DIRECTORY / self.netns).exists():
            code, _, _ = attempt(["ip", "netns", "del", self.netns])
            if code != 0:  # a creator killed between the file and the mount leaves a plain file
                (NETNS_DIRECTORY / self.netns).unlink(missing_ok=True)

    def _free_address(self, host: ipaddress.IPv4Interface) -> ipaddress.IPv4Address:
        taken = {host.ip}
        ports = set(self.network.ports())
        for netns in namespaces():
            # Only ends of our own bridge count; the veth's name tells (same hash, other prefix).
            if netns.startswith("fs-") and f"fsv{netns[3:]}" in ports:
                found = _interface_address(["ip", "-n", netns, "-json", "-4", "addr", "show", "dev", "eth0"])
                taken |= {found.ip} if found else set()
        hosts = list(host.network.hosts())[:LAST_PORT_ADDRESS]
        first = int.from_bytes(hashlib.blake2b(self.machine.encode(), digest_size=4).digest()) % len(hosts)
        for candidate in hosts[first:] + hosts[:first]:
            if candidate not in taken:
                return candidate
        raise StopFault(
            f"the network {self.network.name} has no free address",
            "Stop a machine, or use another network",
            reason="NetworkFull",
        )


@dataclass(frozen=True)
class Tap:
    """A QEMU machine's place in a network: a tap in the bridge. The guest chooses its address itself."""

    network: Network
    machine: str

    @property
    def interface(self) -> str:
        """Name of the tap."""
        return short_name("fst", self.network.scope, self.machine)

    def plug(self, guest: ipaddress.IPv4Interface | None = None) -> None:
        """Make the tap and put it in the bridge, unless it is there; `guest` is the address that the guest has."""
        with network_lock():
            self.network.ensure(guest)
            if not link_exists(self.interface):
                run(["ip", "tuntap", "add", "dev", self.interface, "mode", "tap"])
            run(["ip", "link", "set", self.interface, "master", self.network.bridge, "up"])

    def unplug(self) -> list[str]:
        """Remove the tap, and the bridge if it was the last; gives the names of what is still there."""
        with network_lock():
            if link_exists(self.interface):
                attempt(["ip", "link", "del", self.interface])
            self.network.remove_if_unused()
        return [f"interface {self.interface}"] if link_exists(self.interface) else []


def namespaces() -> set[str]:
    """The network namespaces that `ip netns` manages here."""
    return {entry.name for entry in NETNS_DIRECTORY.iterdir()} if NETNS_DIRECTORY.is_dir() else set()


def link_exists(name: str) -> bool:
    """Whether this host has an interface of this name."""
    return Path(f"/sys/class/net/{name}").exists()


def _interface_address(command: list[str]) -> ipaddress.IPv4Interface | None:
    """The first address whose prefix is not /32, in what `ip -json addr show` prints."""
    code, output, _ = attempt(command)
    if code != 0:
        return None
    for link in json.loads(output or "[]"):
        for address in link.get("addr_info", []):
            if address["prefixlen"] < 32:
                return ipaddress.IPv4Interface(f"{address['local']}/{address['prefixlen']}")
    return None


def _in_use(subnet: ipaddress.IPv4Network) -> bool:
    """Whether an address or a route of this host touches a range."""
    return any(subnet.overlaps(used) for used in _used())


def _used() -> list[ipaddress.IPv4Network]:
    return [
        ipaddress.IPv4Network(row["dst"])
        for row in run_json(["ip", "-json", "-4", "route", "show", "table", "all"])
        if row["dst"] not in ("default", "0.0.0.0/0")
    ]


def _free_subnet(seed: str) -> ipaddress.IPv4Network:
    """A /24 that no address and no route of this host touches."""
    used = _used()
    candidates = [(second, third) for second in SECOND_OCTETS for third in range(256)]
    first = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=4).digest()) % len(candidates)
    for second, third in candidates[first:] + candidates[:first]:
        subnet = ipaddress.IPv4Network(f"10.{second}.{third}.0/24")
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise StopFault("no free /24 in 10.160.0.0-10.223.255.0", "Remove unused networks", reason="NoFreeSubnet")
