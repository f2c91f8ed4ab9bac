"""An interpreter with SQLite for a guest that has none: this one's, with its own loader and libraries, as an archive.

unpack it somewhere, and run `python_at(there)`, a command line for a shell
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|lib2to3|ensurepip|tkinter|__pycache__|site-packages|dist-packages|config-\S+)(/|$)"
)
LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


def archive() -> bytes:
    """Return it as an uncompressed tar."""
    program = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted((library / "lib-dynload").glob("*.so"))
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", dereference=True) as tar:
        tar.add(program, "bin/python")
        tar.add(library, f"lib/{VERSION}", filter=_kept)
        for needed in sorted({name for path in (program, *modules) for name in _needs(path)}):
            tar.add(needed, f"libraries/{Path(needed).name}")
    return written.getvalue()


def python_at(directory: str) -> str:
    """Return the command line of the interpreter of an archive that was unpacked in a directory."""
    loader = next(name for name in _needs(Path(sys.executable).resolve()) if "/ld-linux" in name)
    start = f"{directory}/libraries/{Path(loader).name} --library-path {directory}/libraries {directory}/bin/python"
    return f"/usr/bin/env PYTHONHOME={directory} {start}"


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if LEFT_OUT.search(f"/{entry.name}") else entry


def _needs(program: Path) -> list[str]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return LIBRARY.findall(said)
