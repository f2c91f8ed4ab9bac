"""The text of the service that keeps the agent running: a systemd unit, or an init script for everything else.

Both name the bundle's own directory, not `current`: a running agent must never load a module of another version.
"""

from __future__ import annotations

import shlex

from farshore_engine.bundle.layout import ENVIRONMENT, agent_command
from farshore_engine.processserver.push.facts import load_script

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
