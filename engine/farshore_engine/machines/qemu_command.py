"""The command line of a QEMU machine: what the guest gets, and what keeps it apart from the world."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import BootMode
from farshore_engine.machines.directory import MachineDirectory
from farshore_engine.machines.network import Network, Tap
from farshore_engine.machines.spec import DiskFile

QEMU = "qemu-system-x86_64"
QMP_SOCKET = "qmp.sock"
SERIAL_LENGTH = 20  # characters that virtio has room for
FOUND_ON_DISK = ("gpt-", "dos-", "fs-")  # ids that an agent reads from the disk itself
NETDEV = "lan"
RECONNECT_SECONDS = 300
FIRMWARE = (
    (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    (Path("/usr/share/OVMF/OVMF_CODE.fd"), Path("/usr/share/OVMF/OVMF_VARS.fd")),
)


@dataclass(frozen=True)
class QemuSpec:
    """What to boot.

    Args:
        disks: raw disks, in the order in which the guest finds them.
        memory_mib: MiB.
        boot: BIOS or UEFI.
        boot_disk: index of the disk to boot.
        fixed_address: the address that the guest had and keeps inside, in CIDR notation; empty for any.
        gateway: the gateway that the guest had; empty for any.
        network: name of a bridge to plug into, where the guest has `fixed_address`; empty for user-mode networking.
        mac: the guest's MAC address; empty for QEMU's own.
        owner: the run or drill that it belongs to.
        discard_flushes: answer flushes without waiting for the disk; for tests only, loses data with the host.
    """

    name: str
    disks: tuple[DiskFile, ...]
    memory_mib: int = 1024
    cpus: int = 1
    boot: BootMode = BootMode.BIOS
    boot_disk: int = 0
    fixed_address: str = ""
    gateway: str = ""
    network: str = ""
    mac: str = ""
    owner: str = ""
    discard_flushes: bool = False


def serial_of(disk: DiskFile) -> str:
    """Return the serial number that the guest sees: one that its agent gives the disk's id for, as far as 20 go.

    Otherwise it is one that no other disk has, and the agent has to be told: see `told_id`.
    """
    own = disk.id.removeprefix("serial-")
    if len(own) <= SERIAL_LENGTH or disk.id.startswith(FOUND_ON_DISK):
        return own[:SERIAL_LENGTH]
    return hashlib.blake2b(disk.id.encode(), digest_size=SERIAL_LENGTH // 2).hexdigest()


def told_id(disk: DiskFile) -> bool:
    """Whether the agent in the guest cannot tell the disk's id by its serial number and what is on it."""
    return not disk.id.startswith(FOUND_ON_DISK) and disk.id != f"serial-{serial_of(disk)}"


def kvm_usable() -> bool:
    """Whether guests can run on the processor itself.

    /dev/kvm alone does not say so: it is also there where only paravirtual guests can run. The processor's flags do.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    return ("vmx" in flags or "svm" in flags) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def command_line(directory: MachineDirectory, spec: QemuSpec, port: int) -> list[str]:
    """Program and arguments; QEMU is to be run in the machine's directory.

    Raises:
        StopFault: UEFI is asked for, and no firmware is installed.
    """
    accelerator = ["-accel", "kvm", "-cpu", "host"] if kvm_usable() else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    console = _option(directory.console)
    command = [
        *(QEMU, "-name", spec.name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc" if spec.boot is BootMode.BIOS else "q35", *accelerator),
        *("-m", str(spec.memory_mib), "-smp", str(spec.cpus), "-device", "virtio-rng-pci"),
        *("-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"),
        *("-qmp", f"unix:{QMP_SOCKET},server=on,wait=off"),
        *("-pidfile", str(pidfile(directory))),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]
    if spec.boot is BootMode.UEFI:
        command += _firmware(directory)
    cache = "unsafe" if spec.discard_flushes else "writeback"
    for index, disk in enumerate(spec.disks):
        drive = f"{_backend(disk)},if=none,id=disk{index},format=raw,cache={cache},discard=unmap"
        boot = ",bootindex=1" if index == spec.boot_disk else ""
        sectors = f"logical_block_size={disk.sector_bytes},physical_block_size={disk.sector_bytes}"
        device = f"virtio-blk-pci,drive=disk{index},serial={_option(serial_of(disk))},{sectors}{boot}"
        command += ["-drive", drive, "-device", device]
    mac = f",mac={spec.mac}" if spec.mac else ""
    return [*command, "-netdev", _netdev(directory, spec, port), "-device", f"virtio-net-pci,netdev=lan{mac}"]


def _backend(disk: DiskFile) -> str:
    """Where a drive's bytes are. A server that is gone is waited for: it goes on with all that it acknowledged."""
    if disk.nbd_socket is None:
        return f"file={_option(disk.path)}"
    server = f"file.server.type=unix,file.server.path={_option(disk.nbd_socket)}"
    return f"file.driver=nbd,{server},file.export={_option(disk.id)},file.reconnect-delay={RECONNECT_SECONDS}"


def _netdev(directory: MachineDirectory, spec: QemuSpec, port: int) -> str:
    if spec.network:
        tap = Tap(Network(directory.scope, spec.network), spec.name)
        return f"tap,id=lan,ifname={tap.interface},script=no,downscript=no"
    forward = f"tcp:127.0.0.1:{port}-"
    place = same_place(spec.fixed_address, spec.gateway)
    if place is None:
        return f"user,id=lan,restrict=on,ipv6=off,hostfwd={forward}:22"
    return (
        f"user,id=lan,restrict=on,ipv6=off,{place},hostfwd={forward}{ipaddress.ip_interface(spec.fixed_address).ip}:22"
    )


def mac_address(*parts: str) -> str:
    """Return a MAC address, in the range that QEMU uses, that the same parts always give again."""
    low = hashlib.blake2b("\0".join(parts).encode(), digest_size=3).digest()
    return "52:54:00:" + low.hex(":")


def guest_address(spec: QemuSpec) -> str:
    """The address inside user-mode networking that ports are forwarded to; empty for the one that DHCP hands out."""
    fixed = not spec.network and same_place(spec.fixed_address, spec.gateway) is not None
    return str(ipaddress.ip_interface(spec.fixed_address).ip) if fixed else ""


def same_place(fixed: str, gateway: str) -> str | None:
    """User-mode network options that look to the guest like the network it came from; None if that cannot be.

    DHCP hands out the fixed address first, so a guest that asks gets it too.
    """
    if not fixed:
        return None
    interface = ipaddress.ip_interface(fixed)
    network = interface.network
    if not isinstance(network, ipaddress.IPv4Network) or not 8 <= network.prefixlen <= 28:
        return None
    # QEMU's DHCP server has 16 addresses from the first on, all of which must be in the network.
    if int(interface.ip) + 16 >= int(network.broadcast_address):
        return None
    spare = [host for host in _first_hosts(network, 40) if not 0 <= int(host) - int(interface.ip) < 16]
    wanted = ipaddress.ip_address(gateway) if gateway else None
    router = wanted if wanted in spare else spare[0]
    resolver = next(host for host in spare if host != router)
    return f"net={network},host={router},dns={resolver},dhcpstart={interface.ip}"


def _first_hosts(network: ipaddress.IPv4Network, count: int) -> list[ipaddress.IPv4Address]:
    last = min(count, network.num_addresses - 2)
    return [network.network_address + index for index in range(1, last + 1)]


def _firmware(directory: MachineDirectory) -> list[str]:
    for code, variables in FIRMWARE:
        if code.exists() and variables.exists():
            own = directory.path / "uefi-variables.fd"
            if not own.exists():
                shutil.copyfile(variables, own)
            return [
                *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"),
                *("-drive", f"if=pflash,unit=1,format=raw,file={_option(own)}"),
            ]
    raise StopFault(
        f"{directory.name} boots with UEFI, and no UEFI firmware is installed on this host",
        "Install the package ovmf",
        reason="FirmwareMissing",
    )


def _option(value: object) -> str:
    return str(value).replace(",", ",,")


def pidfile(directory: MachineDirectory) -> Path:
    """Where QEMU notes its pid; being unique to the machine, it is also the mark on the command line."""
    return Path(directory.scope) / directory.name / "qemu.pid"
