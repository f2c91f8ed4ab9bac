"""Network settings of a guest: every Ethernet interface gets the target's, whatever its new name is.

What the guest had is set aside under another name, and can be put back when the machine goes home.
"""

from __future__ import annotations

import ipaddress
import json

from farshore_engine.contract.tasks import NetworkSettings
from farshore_engine.guest.tree import NOTE, WAS, Tree

NETPLAN, NETWORKD, IFUPDOWN = "/etc/netplan", "/etc/systemd/network", "/etc/network/interfaces"
OWN_NETPLAN, OWN_NETWORKD = f"{NETPLAN}/90-farshore.yaml", f"{NETWORKD}/05-farshore.network"
NETWORKD_UNITS = (
    "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
    "/etc/systemd/system/dbus-org.freedesktop.network1.service",
)
MAC_RULES = "/etc/udev/rules.d/70-persistent-net.rules"
CLOUD_INIT = "/etc/cloud/cloud.cfg.d"
HEAD = "# Written by Farshore for the place where this machine was recovered."
OWN_CLOUD_INIT = f"{CLOUD_INIT}/99-farshore-network.cfg"


def set_network(tree: Tree, settings: NetworkSettings) -> list[str]:
    """Give the guest its settings; returns each change, and says so where the guest's way of doing it is not known."""
    what = f"address {settings.address}" if settings.address else "DHCP"
    changes = []
    if tree.is_directory(NETPLAN) and any(name.endswith(".yaml") for name in tree.names(NETPLAN)):
        changes += _netplan(tree, settings, what)
    elif any(tree.exists(unit) for unit in NETWORKD_UNITS):
        if tree.write(OWN_NETWORKD, _networkd(settings)):
            changes.append(f"network (systemd-networkd): every Ethernet interface has {what}, {OWN_NETWORKD}")
    elif tree.read(IFUPDOWN) is not None:
        changes += _ifupdown(tree, settings, what)
    else:
        return [f"{NOTE}network: left alone, neither netplan, systemd-networkd nor ifupdown manages it"]
    if tree.set_aside(MAC_RULES):
        changes.append(f"network: {MAC_RULES}, which ties names to the old MAC addresses, was set aside")
    if tree.is_directory(CLOUD_INIT) and tree.write(OWN_CLOUD_INIT, "network: {config: disabled}\n"):
        changes.append(f"network: cloud-init leaves it alone, {OWN_CLOUD_INIT}")
    return changes


def is_managed(tree: Tree) -> bool:
    """Whether the guest's network is run by something that is known here, so that it has what was set."""
    return (
        any(name.endswith(".yaml") for name in tree.names(NETPLAN))
        or any(tree.exists(unit) for unit in NETWORKD_UNITS)
        or tree.read(IFUPDOWN) is not None
    )


def restore_network(tree: Tree) -> list[str]:
    """Put back what `set_network` changed; returns each change."""
    own = (OWN_NETPLAN, OWN_NETWORKD, OWN_CLOUD_INIT)
    changes = [f"network: {path} was removed" for path in own if tree.remove(path)]
    aside = [MAC_RULES, IFUPDOWN]
    aside += [f"{NETPLAN}/{name.removesuffix(WAS)}" for name in tree.names(NETPLAN) if name.endswith(WAS)]
    return changes + [f"network: {path} is as it was" for path in aside if tree.put_back(path)]


def _netplan(tree: Tree, settings: NetworkSettings, what: str) -> list[str]:
    changes = []
    for name in tree.names(NETPLAN):
        path = f"{NETPLAN}/{name}"
        if name.endswith(".yaml") and path != OWN_NETPLAN and tree.set_aside(path):
            changes.append(f"network: {path} was set aside")
    if tree.write(OWN_NETPLAN, netplan_text(settings), 0o600):
        changes.append(f"network (netplan): every Ethernet interface has {what}, {OWN_NETPLAN}")
    return changes


def netplan_text(settings: NetworkSettings) -> str:
    """Return the settings as netplan reads them: YAML, of which JSON is a part."""
    interface: dict[str, object] = {"match": {"name": "e*"}, "dhcp4": not settings.address}
    if settings.address:
        interface["addresses"] = [settings.address]
    if settings.gateway:
        interface["routes"] = [{"to": "0.0.0.0/0", "via": settings.gateway}]
    if settings.dns:
        interface["nameservers"] = {"addresses": list(settings.dns)}
    content = {"network": {"version": 2, "ethernets": {"farshore": interface}}}
    return f"{HEAD}\n{json.dumps(content, indent=2)}\n"


def _networkd(settings: NetworkSettings) -> str:
    lines = [HEAD, "[Match]", "Type=ether", ""]
    lines += ["[Network]", *(["DHCP=ipv4"] if not settings.address else [f"Address={settings.address}"])]
    lines += [f"Gateway={settings.gateway}"] if settings.gateway else []
    lines += [f"DNS={server}" for server in settings.dns]
    return "\n".join(lines) + "\n"


def _ifupdown(tree: Tree, settings: NetworkSettings, what: str) -> list[str]:
    wanted = _interfaces(settings)
    if tree.read(IFUPDOWN) == wanted:
        return []
    if not tree.exists(IFUPDOWN + WAS):  # else it is ours already, with other settings
        tree.set_aside(IFUPDOWN)
    tree.write(IFUPDOWN, wanted)
    return [f"network (ifupdown): every Ethernet interface has {what}, {IFUPDOWN}; the old one is beside it"]


def _interfaces(settings: NetworkSettings) -> str:
    """Return /etc/network/interfaces: patterns choose the interfaces that are there, whatever their names."""
    lines = [HEAD, "auto lo", "iface lo inet loopback", "", "auto /e*=farshore"]
    if not settings.address:
        return "\n".join([*lines, "iface farshore inet dhcp"]) + "\n"
    found = ipaddress.ip_interface(settings.address)
    lines += [f"iface farshore {'inet6' if found.version == 6 else 'inet'} static", f"    address {settings.address}"]
    lines += [f"    gateway {settings.gateway}"] if settings.gateway else []
    lines += [f"    dns-nameservers {' '.join(settings.dns)}"] if settings.dns else []
    return "\n".join(lines) + "\n"
