"""What keeps the agent running, as text: a systemd unit, an init script for everything else; and the manual install.

All name the bundle's own directory, not `current`: a running agent must never load a module of another version.
"""

from __future__ import annotations

import shlex
from importlib.resources import files

from farshore_engine.bundle.layout import ENVIRONMENT, INSTALL_ROOT, agent_command

CONFIG = "/etc/farshore/agent/config.json"

# The unit starts the loader itself, so no shell takes part. A freeze must end whatever happens: the watchdog is exempt
# from the OOM killer, an OOM kill of one process does not stop the unit, SIGTERM goes to the agent alone (it thaws),
# and ExecStopPost thaws what a killed agent left.
UNIT = """\
[Unit]
Description=Farshore agent: replicates this machine
After=local-fs.target network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=simple
{environment}
ExecStart={run}
ExecStopPost=-{thaw}
Restart=always
RestartSec=5
KillMode=mixed
TimeoutStopSec=30
OOMScoreAdjust=-1000
OOMPolicy=continue
LimitMEMLOCK=infinity

[Install]
WantedBy=multi-user.target"""


def load_script(name: str) -> str:
    """Return a shell script of this package: `lock.sh` and `service.sh` are shared with the push."""
    return (files(__package__) / "scripts" / name).read_text(encoding="utf-8")


def systemd_unit(bundle: str) -> str:
    """Return the unit for the bundle unpacked at the directory `bundle`."""
    return UNIT.format(
        environment="\n".join(f"Environment={name}={value}" for name, value in ENVIRONMENT.items()),
        run=" ".join(agent_command(bundle, "run", "--config", CONFIG)),
        thaw=" ".join(agent_command(bundle, "thaw", "--config", CONFIG)),
    )


def init_script(bundle: str) -> str:
    """Return the script that supervises the agent where there is no systemd; also a SysV init script."""
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in ENVIRONMENT.items())
    text = load_script("agent-service.sh").rstrip("\n")
    return text.replace("@ENVIRONMENT@", environment).replace("@AGENT@", shlex.join(agent_command(bundle)))


def service_text(manager: str, bundle: str) -> str:
    """Return what `scripts/service.sh` installs for a service manager (`systemd`, `sysv` or `none`)."""
    return systemd_unit(bundle) if manager == "systemd" else init_script(bundle)


def manual_install(bundle_id: str) -> str:
    """Return `install.sh` of a bundle: the same steps as a push, for those who carry the bundle in by hand."""
    text = load_script("install.sh").replace("@INSTALL_ROOT@", INSTALL_ROOT).replace("@ID@", bundle_id)
    return text.replace("@LOCK@", load_script("lock.sh")).replace("@SERVICE@", load_script("service.sh"))
