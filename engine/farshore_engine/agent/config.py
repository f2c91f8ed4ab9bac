"""The agent's configuration file: typed, read once, refused with the name of the field that is wrong."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farshore_engine.contract.faults import StopFault

HOOKS_DIR = Path("/etc/farshore/hooks.d")
STOP_DIR = Path("/etc/farshore/stop.d")
DEFAULT_PATH = Path("/etc/farshore/agent/config.json")
TRACKERS = ("auto", "tracefs", "blktrace", "compare")  # those of tracker.probe, best first


def own_interpreter() -> tuple[str, ...]:
    """Return the command line that starts the Python which runs now.

    In the bundle that is its loader with the interpreter as argument: then /proc/self/exe is the loader.
    """
    running = Path("/proc/self/exe").resolve()
    if running.name.startswith("ld-"):
        return (str(running), "--library-path", str(running.parent), sys.executable, "-I")
    return (sys.executable,)


@dataclass(frozen=True, slots=True)
class Server:
    """A process server's data port."""

    host: str
    port: int = 9443


@dataclass(frozen=True, slots=True)
class DiskChoice:
    """Which disks to protect, by id or kernel name. An empty `include` means all; `exclude` wins.

    `names` has serial number, or name of what is on it, and id of each disk that a recovered machine cannot give the id
    that it has in the vault.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything that the agent is told at its start.

    Attributes:
        machine_id: the machine's name on the wire; equals the common name of the certificate.
        servers: process servers, tried in this order.
        ca, certificate, key: paths of PEM files for mutual TLS.
        state_dir: a directory for the agent's own mounts and marks; made when missing.
        runtime_dir: where a freeze is recorded while it lasts; should be a tmpfs.
        freeze_bound: seconds that a freeze may last on this machine whatever the policy says.
        frozen_buffer: bytes of locked memory for what is read under the freeze.
        frozen_buffer_most: bytes that it may grow to for a moment, where rounds of copying leave more than it holds.
        unacknowledged_limit: bytes sent and not yet durable at the process server, at most.
        tracker: "auto", "tracefs", "blktrace" or "compare".
        recovery_dir: scripts that travel with the machine description.
        hooks_dir: the machine's own pre and post hooks.
        stop_dir: hooks that stop services before the last point of a planned failover.
        interpreter: the command line that starts this bundle's Python, for the watchdog.
    """

    machine_id: str
    servers: tuple[Server, ...]
    ca: Path
    certificate: Path
    key: Path
    state_dir: Path = Path("/var/lib/farshore")
    runtime_dir: Path = Path("/run/farshore")
    disks: DiskChoice = field(default_factory=DiskChoice)
    freeze_bound: float = 60.0
    frozen_buffer: int = 20 << 20
    frozen_buffer_most: int = 256 << 20
    unacknowledged_limit: int = 64 << 20
    tracker: str = "auto"
    recovery_dir: Path = Path("/etc/farshore/recovery.d")
    hooks_dir: Path = HOOKS_DIR
    stop_dir: Path = STOP_DIR
    interpreter: tuple[str, ...] = field(default_factory=own_interpreter)


def _fail(where: str, what: str) -> StopFault:
    return StopFault(f"agent configuration: {where}: {what}", "Correct the file and restart", reason="BadConfiguration")


def _take(raw: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    if name not in raw:
        if default is None:
            raise _fail(name, "missing")
        return default
    value = raw.pop(name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _fail(name, f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _positive(raw: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = _take(raw, name, kind, default)
    if value <= 0:
        raise _fail(name, "must be greater than 0")
    return value


def _strings(raw: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = _take(raw, name, list, [])
    if not all(isinstance(v, str) for v in values):
        raise _fail(where, "expected a list of strings")
    return tuple(values)


def _names(disks: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    names = _take(disks, "names", dict, {})
    if not all(isinstance(text, str) for text in names.values()):
        raise _fail("disks.names", "expected an object of strings")
    return tuple(names.items())


def _servers(raw: dict[str, Any]) -> tuple[Server, ...]:
    servers = []
    for index, entry in enumerate(_take(raw, "servers", list)):
        where = f"servers[{index}]"
        if not isinstance(entry, dict):
            raise _fail(where, "expected an object with host and port")
        host, port = entry.get("host"), entry.get("port", 9443)
        if not isinstance(host, str) or not host:
            raise _fail(f"{where}.host", "expected a name or an address")
        if not isinstance(port, int) or not 0 < port < 65536:
            raise _fail(f"{where}.port", "expected a number from 1 to 65535")
        servers.append(Server(host, port))
    if not servers:
        raise _fail("servers", "at least one is needed")
    return tuple(servers)


def parse(raw: dict[str, Any]) -> AgentConfig:
    """Build the configuration from the decoded JSON object (camelCase names); raises StopFault naming the field."""
    raw = dict(raw)
    disks = dict(_take(raw, "disks", dict, {}))
    listed = {name: _strings(disks, name, f"disks.{name}") for name in ("include", "exclude")}
    choice = DiskChoice(**listed, names=_names(disks))
    if disks:
        raise _fail("disks", f"unknown fields {sorted(disks)}")
    tracker = _take(raw, "tracker", str, "auto")
    if tracker not in TRACKERS:
        raise _fail("tracker", f"{tracker!r} is none of {', '.join(TRACKERS)}")
    interpreter = _strings(raw, "interpreter", "interpreter") or own_interpreter()
    config = AgentConfig(
        machine_id=_take(raw, "machineId", str),
        servers=_servers(raw),
        ca=Path(_take(raw, "ca", str)),
        certificate=Path(_take(raw, "certificate", str)),
        key=Path(_take(raw, "key", str)),
        state_dir=Path(_take(raw, "stateDir", str, "/var/lib/farshore")),
        runtime_dir=Path(_take(raw, "runtimeDir", str, "/run/farshore")),
        disks=choice,
        freeze_bound=_positive(raw, "freezeBound", float, 60.0),
        frozen_buffer=_positive(raw, "frozenBuffer", int, 20 << 20),
        frozen_buffer_most=_positive(raw, "frozenBufferMost", int, 256 << 20),
        unacknowledged_limit=_positive(raw, "unacknowledgedLimit", int, 64 << 20),
        tracker=tracker,
        recovery_dir=Path(_take(raw, "recoveryDir", str, "/etc/farshore/recovery.d")),
        hooks_dir=Path(_take(raw, "hooksDir", str, str(HOOKS_DIR))),
        stop_dir=Path(_take(raw, "stopDir", str, str(STOP_DIR))),
        interpreter=interpreter,
    )
    if not config.machine_id:
        raise _fail("machineId", "is empty")
    if raw:
        raise _fail("unknown fields", ", ".join(sorted(raw)))
    return config


def load(path: Path) -> AgentConfig:
    """Read and check the file; raises StopFault."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _fail(str(path), error.strerror or str(error)) from error
    except ValueError as error:
        raise _fail(str(path), f"is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise _fail(str(path), "is not a JSON object")
    return parse(raw)
