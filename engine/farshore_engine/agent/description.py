"""Describes the machine, so that it can be built again from the vault alone: the JSON of contract.machine.

The contract is a pydantic model, which the bundle does not carry; a contract test holds the two together.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from farshore_engine.agent.disks import Disk
from farshore_engine.agent.mounts import Mount, current_mounts
from farshore_engine.agent.signatures import (
    FREEZABLE,
    HEAD_SIZE,
    Signature,
    is_bootable,
    signature_of,
    table_entries,
    table_kind,
)
from farshore_engine.agent.source import Reader
from farshore_engine.contract.faults import StopFault

MAX_SCRIPTS = 256 << 10  # bytes of all recovery scripts together

_SIOCGIFADDR, _SIOCGIFNETMASK = 0x8915, 0x891B


def describe(disks: list[Disk], recovery_dir: Path) -> dict[str, Any]:
    """Return the machine description; raises StopFault when the recovery scripts are too large."""
    release = _os_release()
    mounts = current_mounts()
    return {
        "hostname": socket.gethostname(),
        "os": release.get("PRETTY_NAME", ""),
        "osId": release.get("ID", ""),
        "osVersion": release.get("VERSION_ID", ""),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count() or 1,
        "memoryBytes": memory_bytes(),
        "bootMode": _boot_mode(),
        "machineUuid": _read("/sys/class/dmi/id/product_uuid"),
        "timezone": _timezone(),
        "disks": [_disk(disk, mounts) for disk in disks],
        "interfaces": _interfaces(),
        "nameservers": re.findall(r"(?m)^nameserver\s+(\S+)", _read("/etc/resolv.conf")),
        "recoveryScripts": recovery_scripts(recovery_dir),
    }


def recovery_scripts(directory: Path) -> list[dict[str, Any]]:
    """Return the scripts of the recovery directory by name; raises StopFault when they exceed MAX_SCRIPTS."""
    scripts, total = [], 0
    if not directory.is_dir():
        return []
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        total += len(raw)
        if total > MAX_SCRIPTS:
            raise StopFault(
                f"the scripts in {directory} hold more than {MAX_SCRIPTS >> 10} KiB",
                "Move data that they need to a protected disk",
                reason="RecoveryScriptsTooLarge",
            )
        mode = path.stat().st_mode & 0o7777
        scripts.append({"name": path.name, "mode": mode, "content": raw.decode(errors="replace")})
    return scripts


def memory_bytes() -> int:
    """Return the machine's memory in bytes, 0 if unknown."""
    match = re.search(r"(?m)^MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    return int(match[1]) * 1024 if match else 0


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _os_release() -> dict[str, str]:
    text = _read("/etc/os-release") or _read("/usr/lib/os-release")
    return {key: value.strip("\"'") for key, value in re.findall(r"(?m)^([A-Z_]+)=(.*)$", text)}


def _boot_mode() -> str:
    return "uefi" if Path("/sys/firmware/efi").is_dir() else "bios"


def _timezone() -> str:
    if name := _read("/etc/timezone"):
        return name
    with suppress(OSError):
        target = Path("/etc/localtime").readlink()
        return str(target).partition("zoneinfo/")[2]
    return ""


def _disk(disk: Disk, mounts: list[Mount]) -> dict[str, Any]:
    head = _head(disk.path)
    kind = table_kind(head)
    described: dict[str, Any] = {
        "id": disk.id,
        "name": disk.name,
        "sizeBytes": disk.size,
        "logicalSectorBytes": disk.sector,
        "partitionTable": kind,
        "bootable": is_bootable(head),
        "replicated": disk.replicated,
        "serial": disk.serial,
        "model": disk.model,
        "partitions": _partitions(disk, head, mounts),
    }
    found = signature_of(head)
    if not kind and found is not None:
        described["fileSystem"] = _file_system(found, f"{disk.major}:{disk.minor}", mounts)
    return described


def _head(path: str, offset: int = 0) -> bytes:
    try:
        reader = Reader(path)
    except OSError:
        return b""
    try:
        return bytes(reader.read(offset, HEAD_SIZE)) if offset < reader.size else b""
    except OSError:
        return b""
    finally:
        reader.close()


def _partitions(disk: Disk, head: bytes, mounts: list[Mount]) -> list[dict[str, Any]]:
    entries = {e.number: e for e in table_entries(head)}
    partitions = []
    for marker in Path(f"/sys/block/{disk.name}").glob("*/partition"):
        directory = marker.parent
        number = int(_read(marker))
        start = int(_read(directory / "start")) * 512
        entry = entries.get(number)
        partition: dict[str, Any] = {
            "name": directory.name,
            "number": number,
            "startBytes": start,
            "sizeBytes": int(_read(directory / "size")) * 512,
            "typeId": entry.type_id if entry else "",
            "uuid": entry.uuid if entry else "",
        }
        found = signature_of(_head(disk.path, start))
        if found is not None:
            partition["fileSystem"] = _file_system(found, _read(directory / "dev"), mounts)
        partitions.append(partition)
    return sorted(partitions, key=lambda p: int(p["number"]))


def _file_system(found: Signature, device: str, mounts: list[Mount]) -> dict[str, Any]:
    mount = next((m for m in mounts if m.device == device and m.root == "/"), None)
    return {
        "kind": found.kind,
        "uuid": found.uuid,
        "label": found.label,
        "mountPoint": mount.point if mount else "",
        "mountOptions": mount.options if mount else "",
        "freezable": found.kind in FREEZABLE,
    }


def _gateways() -> dict[str, str]:
    gateways = {}
    for line in _read("/proc/net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[1] == "00000000":
            gateways[fields[0]] = socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    return gateways


def _ipv4(name: str) -> list[str]:
    """Return the interface's first IPv4 address in CIDR notation; further ones need netlink and are left out."""
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            address = socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, request)[20:24])
            mask = struct.unpack("!I", fcntl.ioctl(probe, _SIOCGIFNETMASK, request)[20:24])[0]
        except OSError:
            return []
    return [f"{address}/{mask.bit_count()}"]


def _ipv6(name: str) -> list[str]:
    found = []
    for line in _read("/proc/net/if_inet6").splitlines():
        raw, _, prefix, _, _, device = line.split()
        if device == name:
            found.append(f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))}/{int(prefix, 16)}")
    return found


def _interfaces() -> list[dict[str, Any]]:
    gateways = _gateways()
    interfaces = []
    for _, name in socket.if_nameindex():
        if name == "lo":
            continue
        directory = Path("/sys/class/net") / name
        interfaces.append(
            {
                "name": name,
                "mac": _read(directory / "address"),
                "mtu": int(_read(directory / "mtu") or 1500),
                "addresses": _ipv4(name) + _ipv6(name),
                "gateway": gateways.get(name, ""),
            }
        )
    return interfaces
