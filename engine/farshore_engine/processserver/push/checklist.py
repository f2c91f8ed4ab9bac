"""The checklist of preflight: each check judges the facts of a machine and says what is wrong and what to do.

Pure: facts, limits and times come in, a `Check` comes out. Only errors block an installation. The list is Step 1 of the
tutorial ("Prepare Azure Stack VMs") and what our agent needs beyond it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from farshore_engine.agent.disks import LOOP, WHOLE_DISK
from farshore_engine.agent.signatures import FREEZABLE
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import Check
from farshore_engine.processserver.push.facts import Facts, Space
from farshore_engine.processserver.push.verdicts import error, passed, warning

MIB = 1 << 20
VAR_BYTES = 32 * MIB  # state and marks of the agent
ETC_BYTES = 1 * MIB
SPARE_BYTES = 64 * MIB  # what an installation leaves free on /opt
MEMORY_BYTES = 192 * MIB  # a machine with less cannot spare the agent's 80 MiB
FREE_MEMORY_BYTES = 120 * MIB
CLOCK_WARNING_SECONDS, CLOCK_ERROR_SECONDS = 60, 300
NEEDED_TOOLS = ("tar", "gzip")
LASTING_ID = re.compile(r"^(wwn|serial|gpt|dos|mbr|fs|name)-")
QUIET = frozenset(("vfat", "iso9660", "squashfs", "erofs"))  # small or read-only: watched for writes instead


@dataclass(frozen=True)
class Needs:
    """What the bundle needs of a machine; sizes in bytes."""

    bundle_id: str
    archive_bytes: int
    unpacked_bytes: int
    kernel: tuple[int, int, int]
    cpu_flags: tuple[str, ...]


def public_address(addresses: Iterable[str]) -> Check:
    """Warn when the source's address is a public one (the tutorial: "replication may not work as expected")."""
    name = "PublicAddress"
    addresses = list(addresses)
    public = [a for a in addresses if ipaddress.ip_address(a.partition("%")[0]).is_global]
    if public:
        return warning(
            name,
            f"{', '.join(public)} is a public address",
            "Use the machine's private address in spec.source.address; replication over a public one may not work as "
            "expected",
        )
    return passed(name, f"{', '.join(addresses) or 'the address'} is private")


def operating_system(facts: Facts) -> Check:
    """Linux on x86-64."""
    name = "OperatingSystem"
    if facts.system != "Linux":
        return error(
            name,
            f"the machine runs {facts.system or 'an unknown system'}",
            "The native engine protects Linux; use a vault with `engine: siteRecovery` for Windows",
        )
    if facts.architecture != "x86_64":
        return error(name, f"the processor is {facts.architecture}", "The agent is built for x86-64 (amd64) only")
    return passed(name, f"{facts.os or 'Linux'}, {facts.architecture}")


def kernel_features(facts: Facts, needs: Needs) -> Check:
    """The kernel's version, the processor's instructions, tracking of writes, and freezing of file systems."""
    name = "KernelFeatures"
    floor = ".".join(map(str, needs.kernel))
    if _release(facts.kernel) < needs.kernel:
        return error(
            name,
            f"the kernel is {facts.kernel}; the agent needs {floor} or newer",
            "Update the kernel or the distribution of the machine",
        )
    missing = [flag for flag in needs.cpu_flags if flag not in facts.cpu_flags]
    if missing and facts.cpu_flags:
        return error(
            name,
            f"the processor lacks {', '.join(missing)}",
            "Give the virtual machine a processor model with x86-64-v2 (any since 2009; in QEMU not qemu64 but `host` "
            "or `max`)",
        )
    unfreezable = [m for m in facts.mounts if m.kind not in FREEZABLE | QUIET and not m.kind.startswith("fuse.")]
    if not _can_trace(facts):
        return warning(
            name,
            f"kernel {facts.kernel} offers no block events in tracefs: the agent tries blktrace, and where that is "
            "refused too, changes are found by comparing hashes",
            "Comparing reads the whole disk for each point, which tracefs and CONFIG_BLK_DEV_IO_TRACE avoid",
        )
    if unfreezable:
        listed = ", ".join(f"{m.point} ({m.kind})" for m in unfreezable[:5])
        return warning(
            name,
            f"file systems that may not be freezable: {listed}",
            "Points are marked where such a file system is written to while the others are frozen",
        )
    return passed(name, f"kernel {facts.kernel}: block events for tracking, file systems can be frozen")


def _can_trace(facts: Facts) -> bool:
    """Whether block events are there, or will be when the agent has mounted tracefs."""
    if "events" in facts.tracefs:
        return True
    mountable = bool(facts.tracefs & {"known", "debugfs"}) and facts.blk_trace != "n"
    return mountable and "no-block-events" not in facts.tracefs


def tools(facts: Facts) -> Check:
    """The few programs that unpacking needs."""
    missing = [tool for tool in NEEDED_TOOLS if tool not in facts.tools]
    if missing:
        return error("Tools", f"the machine has no {' and no '.join(missing)}", f"Install {' and '.join(missing)}")
    return passed("Tools", f"sh, {', '.join(NEEDED_TOOLS)} are there")


def free_space(facts: Facts, needs: Needs) -> Check:
    """Room for the bundle on /opt, for state on /var, for the configuration on /etc."""
    name = "FreeSpace"
    there = facts.installed == needs.bundle_id
    opt_bytes = MIB if there else needs.archive_bytes + needs.unpacked_bytes + SPARE_BYTES
    wanted: list[tuple[str, Space, int]] = [
        ("/opt/farshore", facts.opt, opt_bytes),
        ("/var/lib/farshore", facts.var, VAR_BYTES),
        ("/etc/farshore", facts.etc, ETC_BYTES),
    ]
    for directory, space, _ in wanted:
        if space.read_only:
            return error(
                name,
                f"{directory} cannot be written to: {space.mount_point or 'its file system'} is read-only",
                f"Mount {space.mount_point or 'it'} writable, or make {directory} a directory of its own",
            )
    by_mount: dict[str, tuple[int, int, list[str]]] = {}
    for directory, space, size in wanted:
        free, total, directories = by_mount.get(space.mount_point, (space.free_bytes, 0, []))
        by_mount[space.mount_point] = (free, total + size, [*directories, directory])
    for mount_point, (free, total, directories) in by_mount.items():
        if free < total:
            return error(
                name,
                f"{mount_point or '/'} has {_mib(free)} free, {' and '.join(directories)} need {_mib(total)}",
                f"Free {_mib(total - free)} on {mount_point or '/'}",
            )
    return passed(name, f"{_mib(facts.opt.free_bytes)} free for /opt, {_mib(facts.var.free_bytes)} for /var")


def memory(facts: Facts) -> Check:
    """Memory for the agent, which locks at most 80 MiB of it."""
    total, free = facts.memory_bytes, facts.free_memory_bytes
    if total < MEMORY_BYTES:
        return error(
            "Memory",
            f"the machine has {_mib(total)} of memory",
            f"Give it at least {_mib(MEMORY_BYTES)}: the agent locks up to 80 MiB",
        )
    if free < FREE_MEMORY_BYTES:
        return warning(
            "Memory",
            f"only {_mib(free)} of {_mib(total)} are available",
            "The agent locks up to 80 MiB; stop what is not needed, or add memory",
        )
    return passed("Memory", f"{_mib(free)} of {_mib(total)} available")


def disks(facts: Facts, source: Source) -> Check:
    """At least one disk to protect, and no name in include or exclude that matches nothing."""
    name = "Disks"
    usable = [d for d in facts.disks if d.usable and d.size_bytes and not d.read_only]
    found = [d for d in usable if WHOLE_DISK.match(d.name)] or [d for d in usable if LOOP.match(d.name)]
    has = ", ".join(f"{d.name} ({_mib(d.size_bytes)})" for d in found) or "no disk that can be opened"
    known = {word for d in found for word in (d.name, f"/dev/{d.name}")}

    def unmatched(words: Iterable[str]) -> list[str]:
        return [word for word in words if word not in known and not LASTING_ID.match(word)]

    if wrong := unmatched(source.include_disks):
        return error(
            name,
            f"spec.source.disks.include names {', '.join(wrong)}, which the machine does not have",
            f"Correct the list; the machine has {has}",
        )
    included = [d for d in found if not source.include_disks or {d.name, f"/dev/{d.name}"} & set(source.include_disks)]
    by_id = [word for word in (*source.include_disks, *source.exclude_disks) if word not in known]
    left = [d for d in included if not {d.name, f"/dev/{d.name}"} & set(source.exclude_disks)]
    if not left and not any(LASTING_ID.match(word) for word in source.include_disks):
        return error(
            name,
            f"no disk is left to protect; the machine has {has}",
            "Correct spec.source.disks, or attach a disk",
        )
    if wrong := unmatched(source.exclude_disks):
        return warning(
            name,
            f"spec.source.disks.exclude names {', '.join(wrong)}, which the machine does not have",
            f"Correct the list; the machine has {has}",
        )
    if by_id:
        return passed(name, f"the machine has {has}; {', '.join(by_id)} is matched by the agent")
    return passed(name, f"to protect: {', '.join(f'{d.name} ({_mib(d.size_bytes)})' for d in left)}")


def host_name(facts: Facts) -> Check:
    """The machine's own name resolves to its addresses.

    The tutorial demands it ("entries that map the local hostname to IP addresses associated with all network
    adapters"). Our agent does without, and so do most recovered machines: a warning.
    """
    name = "HostNameMapping"
    own = {_plain(a) for a in facts.addresses}
    outside = next((a for a in facts.addresses if ":" not in a and not a.startswith("127.")), "ADDRESS")
    remedy = f"Add the line `{outside} {facts.hostname}` to /etc/hosts of the machine, or a record to its DNS"
    if not facts.resolved:
        return warning(name, f"the host name {facts.hostname} does not resolve in the machine", remedy)
    foreign = [a for a in facts.resolved if _plain(a) not in own and not ipaddress.ip_address(_plain(a)).is_loopback]
    if foreign and own:
        return warning(
            name,
            f"the host name {facts.hostname} resolves to {', '.join(foreign)}, not an address of the machine",
            remedy,
        )
    if all(ipaddress.ip_address(_plain(a)).is_loopback for a in facts.resolved):
        return passed(name, f"{facts.hostname} maps to {', '.join(facts.resolved)} (loopback)")
    return passed(name, f"{facts.hostname} maps to {', '.join(facts.resolved)}")


def clock(facts: Facts, before: float, after: float) -> Check:
    """The machine's clock against ours, which lay between `before` and `after` (seconds) when it was read."""
    skew = facts.clock + 0.5 - (before + after) / 2
    doubt = (after - before) / 2 + 0.5
    off = max(0.0, abs(skew) - doubt)
    words = f"the clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this process server's"
    remedy = "Synchronise the machine's clock with a time server (chrony, systemd-timesyncd), or this process server's"
    if off > CLOCK_ERROR_SECONDS:
        return error("Clock", words, remedy)
    if off > CLOCK_WARNING_SECONDS:
        return warning("Clock", words, remedy)
    return passed("Clock", "the clock agrees with this process server's" if off < 2 else words)


def service_manager(facts: Facts) -> Check:
    """Who starts the agent after a boot."""
    if facts.service == "systemd":
        return passed("ServiceManager", "systemd")
    if facts.service == "sysv":
        return passed("ServiceManager", "SysV init")
    return warning(
        "ServiceManager",
        "neither systemd nor SysV init runs here; the agent is started by itself",
        "It does not start again after a reboot until this process server logs in; add it to the machine's boot",
    )


def earlier_install(facts: Facts, needs: Needs) -> Check:
    """What is installed already, of ours or of another product."""
    name = "EarlierInstall"
    if facts.other:
        return warning(
            name,
            f"the machine also has {', '.join(facts.other)}",
            "Two products that track and freeze the same disks slow each other down; remove the one that is not used",
        )
    if facts.installed == needs.bundle_id:
        return passed(name, f"the agent {facts.installed} is installed and current")
    if facts.installed:
        return passed(name, f"the agent {facts.installed} is installed; {needs.bundle_id} will replace it")
    if facts.units or facts.configured:
        return passed(name, "left over from an installation that was not finished; it will be completed")
    return passed(name, "no agent is installed")


def _release(text: str) -> tuple[int, int, int]:
    numbers = [int(n) for n in re.findall(r"\d+", text.partition("-")[0])[:3]] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]


def _plain(address: str) -> str:
    return str(ipaddress.ip_address(address.partition("%")[0]))


def _mib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 10 << 30 else f"{size >> 20} MiB"
