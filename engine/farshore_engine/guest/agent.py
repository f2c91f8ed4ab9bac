"""Takes the old agent's identity from a guest, so that it cannot write to the chain that its machine had before.

The bundle and the hooks stay: the process server of the new place pushes an identity, and starts the agent.
"""

from __future__ import annotations

import re

from farshore_engine.guest.tree import Tree

IDENTITY = ("/etc/farshore/agent", "/var/lib/farshore")
UNIT = "farshore-agent.service"
SERVICES = (f"/etc/systemd/system/multi-user.target.wants/{UNIT}", "/etc/farshore/agent-service")
STARTED_BY_INIT = re.compile(r"S\d\dfarshore-agent")


def detach_agent(tree: Tree) -> list[str]:
    """Remove its key, certificate, configuration and state, and what starts it at boot; returns each change."""
    removed = [path for path in (*IDENTITY, *SERVICES) if tree.remove(path)]
    for level in range(7):
        folder = f"/etc/rc{level}.d"
        removed += [
            path
            for name in tree.names(folder)
            if STARTED_BY_INIT.fullmatch(name) and tree.remove(path := f"{folder}/{name}")
        ]
    return [f"agent: {path} was removed" for path in removed]
