"""Where things are inside the bundle, and how it is started: known to the builder, the installer and the units."""

from __future__ import annotations

import shlex

INSTALL_ROOT = "/opt/farshore"
LOADER = "lib/ld-linux-x86-64.so.2"
INTERPRETER = "bin/python3"
MANIFEST = "bundle.json"
AGENT_MODULE = "farshore_engine.agent.main"

# One thread is plenty for bitmaps, and each further one would lock its stack in the machine's memory.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}

WRAPPER = """\
#!/bin/sh
# Starts the agent of this bundle. Only for people: the service starts the loader itself and needs no shell.
link=$0
if [ -L "$link" ]; then link=$(readlink -f "$link"); fi
here=$(CDPATH='' cd "$(dirname "$link")/.." && pwd -P) || exit 1
export {environment}
exec "$here/{loader}" --library-path "$here/lib" "$here/{interpreter}" -I -m {module} "$@"
"""


def python_command(root: str) -> tuple[str, ...]:
    """Return the command line of the bundle's own interpreter, isolated, for a bundle unpacked at `root`.

    The loader is called by its path, because the one that the executables name may be missing or too old.
    """
    return (f"{root}/{LOADER}", "--library-path", f"{root}/lib", f"{root}/{INTERPRETER}", "-I")


def agent_command(root: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of the agent of the bundle unpacked at `root`; it needs no shell."""
    return (*python_command(root), "-m", AGENT_MODULE, *arguments)


def wrapper() -> bytes:
    """Return the text of `bin/farshore-agent`."""
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in ENVIRONMENT.items())
    text = WRAPPER.format(environment=environment, loader=LOADER, interpreter=INTERPRETER, module=AGENT_MODULE)
    return text.encode()
