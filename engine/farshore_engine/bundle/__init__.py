"""The agent bundle: a directory tree that runs the agent on any x86-64 Linux without using anything of it.

It carries its own dynamic loader, C library, Python interpreter and packages, so it works on machines whose own libc
is older, newer, or not glibc at all. `build` makes the archive (`agent.tar.gz`), `layout` says what is where.
"""

from farshore_engine.bundle.build import Bundle, build_bundle
from farshore_engine.bundle.layout import INSTALL_ROOT, agent_command

__all__ = ["INSTALL_ROOT", "Bundle", "agent_command", "build_bundle"]
