"""What preflight knows of a machine: gathered by one small script that only reads, parsed into a typed value."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

SECTOR = 512


def load_script(name: str) -> str:
    """Return a shell script of this package."""
    return (files(__package__) / "scripts" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class SeenDisk:
    """A block device without what lies on top of it; `usable` False when its node is missing or does not open."""

    name: str
    size_bytes: int
    read_only: bool
    usable: bool


@dataclass(frozen=True)
class SeenMount:
    """A mounted file system on a device."""

    device: str
    kind: str
    point: str


@dataclass(frozen=True)
class Space:
    """Free bytes of a place and the mount point that has them; `read_only` when root may not write there."""

    free_bytes: int
    mount_point: str
    read_only: bool


@dataclass(frozen=True)
class Facts:
    """The answers of `scripts/facts.sh`. Empty strings and tuples where the machine could not tell.

    Attributes:
        clock: seconds since the epoch, as the machine has it.
        tracefs: any of `events` (block events are there), `no-block-events`, `known`, `debugfs`.
        blk_trace: value of CONFIG_BLK_DEV_IO_TRACE, empty if the configuration is not readable.
        service: `systemd`, `sysv` or empty.
        installed: the bundle that /opt/farshore/current points to.
    """

    clock: int
    system: str
    architecture: str
    kernel: str
    hostname: str
    root: bool
    os: str
    cpu_flags: frozenset[str]
    memory_bytes: int
    free_memory_bytes: int
    tracefs: frozenset[str]
    blk_trace: str
    lockdown: str
    opt: Space
    var: Space
    etc: Space
    disks: tuple[SeenDisk, ...]
    mounts: tuple[SeenMount, ...]
    resolved: tuple[str, ...]
    addresses: tuple[str, ...]
    tools: frozenset[str]
    service: str
    selinux: str
    installed: str
    units: tuple[str, ...]
    configured: bool
    other: tuple[str, ...]


def parse_facts(text: str) -> Facts:
    """Parse the output of the script; unknown names and broken lines are skipped, missing numbers are 0."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            values.setdefault(name, []).append(value.strip())

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(value for value in values.get(name, []) if value)

    def one(name: str) -> str:
        return next(iter(all_of(name)), "")

    def number(name: str) -> int:
        return int(one(name)) if one(name).isdigit() else 0

    root = one("uid") == "0"
    read_only = all_of("read_only") if root else ()

    def space(name: str, directory: str) -> Space:
        free, _, point = one(name).partition(" ")
        return Space(int(free) * 1024 if free.isdigit() else 0, point, directory in read_only)

    return Facts(
        clock=number("clock"),
        system=one("system"),
        architecture=one("architecture"),
        kernel=one("kernel"),
        hostname=one("hostname"),
        root=root,
        os=one("os"),
        cpu_flags=frozenset(one("cpu_flags").split()),
        memory_bytes=number("memory_kib") * 1024,
        free_memory_bytes=number("memory_free_kib") * 1024,
        tracefs=frozenset(all_of("tracefs")),
        blk_trace=one("blk_trace"),
        lockdown=one("lockdown"),
        opt=space("opt", "/opt/farshore"),
        var=space("var", "/var/lib/farshore"),
        etc=space("etc", "/etc/farshore"),
        disks=tuple(disk for value in all_of("disk") if (disk := _disk(value)) is not None),
        mounts=tuple(SeenMount(*value.split(" ", 2)) for value in all_of("mount") if value.count(" ") >= 2),
        resolved=all_of("resolved"),
        addresses=all_of("address"),
        tools=frozenset(all_of("tool")),
        service=one("service"),
        selinux=one("selinux"),
        installed=one("installed"),
        units=all_of("unit"),
        configured=bool(one("configured")),
        other=all_of("other"),
    )


def _disk(value: str) -> SeenDisk | None:
    words = value.split()
    if len(words) != 4 or not words[1].isdigit():
        return None
    return SeenDisk(words[0], int(words[1]) * SECTOR, words[2] == "1", words[3] == "yes")
