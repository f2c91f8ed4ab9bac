"""Push: the process server's way into a source machine over SSH (preflight, install, upgrade, uninstall, power-off)."""

from farshore_engine.processserver.push.pusher import PushInstaller

__all__ = ["PushInstaller"]
