"""What a machine leaves on the host: looked for by what names it, so that other tests on the host do not matter."""

from __future__ import annotations

from pathlib import Path

from farshore_engine.machines import loop
from farshore_engine.machines.network import Network, Port, Tap, namespaces


def traces(run_dir: Path, machines: list[str], networks: list[str]) -> list[str]:
    """Everything on this host that belongs to the run directory or lies beneath its parent; empty when it is clean."""
    scope, base = str(run_dir.resolve()), str(run_dir.resolve().parent)
    found = [f"mount: {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if base in line]
    found += [f"loop: {device}" for device in loop.attached() if device.backing.startswith(base)]
    links = {entry.name for entry in Path("/sys/class/net").iterdir()}
    for network in (Network(scope, name) for name in networks):
        interfaces = {network.bridge}
        for machine in machines:
            port = Port(network, machine)
            interfaces |= {port.veth, Tap(network, machine).interface}
            found += [f"netns: {port.netns}"] if port.netns in namespaces() else []
        found += [f"interface: {name}" for name in sorted(interfaces & links)]
    found += [f"directory: {run_dir / name}" for name in machines if (run_dir / name).exists()]
    return found + [f"process: {line}" for line in processes_of(base)]


def processes_of(base: str) -> list[str]:
    """Processes whose command line names the directory (QEMU), or whose machine is there (process 1 of a namespace)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            output = (entry / "fd/1").readlink() if "namespace_init.py" in line else Path()
        except OSError:
            continue  # it ended meanwhile
        if (line.startswith("qemu-system") and base in line) or str(output).startswith(base):
            found.append(f"{entry.name} {line}")
    return found
