"""The demo's ledger in a guest: a service that starts with it, with an interpreter of its own beside its data."""

from __future__ import annotations

from pathlib import Path

from tests.demo.watcher import PORT
from tests.machines.portable_python import archive, python_at
from tests.machines.qemu_source import QemuSource

LEDGER = Path(__file__).resolve().parents[1] / "demo" / "ledger.py"
UNIT = f"""[Unit]
RequiresMountsFor=/data
[Service]
ExecStart={{python}} /data/ledger.py /data/ledger.db --port {PORT}
Restart=always
[Install]
WantedBy=multi-user.target
"""
SECONDS = 900.0


def install_ledger(guest: QemuSource) -> None:
    """Install and start it; the guest has a file system at /data."""
    guest.ssh("mkdir -p /data/python && tar -xf - -C /data/python", stdin=archive(), timeout=SECONDS)
    guest.ssh("cat > /data/ledger.py", stdin=LEDGER.read_bytes(), timeout=SECONDS)
    unit = UNIT.format(python=python_at("/data/python"))
    guest.ssh("cat > /etc/systemd/system/ledger.service", stdin=unit.encode(), timeout=SECONDS)
    guest.ssh("systemctl enable --now ledger.service && sync", timeout=SECONDS)
