"""Chooses what goes into the agent bundle: the interpreter, the parts of its library that the agent can need, packages.

The interpreter is the one that runs this code. Everything is chosen by rules that name what is left out, so that a new
import in the agent does not break the bundle; only compiled modules are named one by one, for each brings libraries.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from farshore_engine.bundle.elf import is_elf, read_elf, shared_libraries, without_needed
from farshore_engine.bundle.layout import INTERPRETER, LOADER, wrapper
from farshore_engine.contract.faults import StopFault


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STDLIB_LEFT_OUT = _words(
    "site-packages dist-packages __pycache__ test tests idlelib tkinter turtledemo turtle.py ensurepip lib2to3 "
    "lib-dynload pydoc_data pydoc.py doctest.py distutils venv unittest sqlite3 curses dbm wsgiref xmlrpc msilib "
    "sndhdr.py imghdr.py cgi.py cgitb.py smtpd.py imaplib.py nntplib.py poplib.py telnetlib.py mailbox.py ftplib.py "
    "antigravity.py this.py xdrlib.py chunk.py aifc.py wave.py sunau.py audioop.py LICENSE.txt EXTERNALLY-MANAGED "
    "sitecustomize.py"
)
EXTENSIONS = _words(
    "_asyncio _bisect _blake2 _bz2 _contextvars _csv _ctypes _datetime _decimal _hashlib _heapq _json _lzma _md5 "
    "_multiprocessing _opcode _pickle _posixshmem _posixsubprocess _queue _random _sha1 _sha2 _sha256 _sha3 _sha512 "
    "_socket _ssl _statistics _struct _typing _zoneinfo array binascii cmath fcntl grp math mmap pyexpat resource "
    "select spwd syslog termios unicodedata zlib"
)
NUMPY_LEFT_OUT = _words("tests include f2py distutils testing random fft polynomial ma _pyinstaller conftest.py")
NUMPY_TEST_PARTS = (
    "_simd.",
    "_multiarray_tests.",
    "_umath_tests.",
    "_rational_tests.",
    "_struct_ufunc_tests.",
    "_operand_flag",
)
# How numpy is made to do without its linear algebra library (see `_numpy`): bind functions when they are first called,
# and do not try that library when numpy is imported. Each line must be there exactly once, or numpy stays whole.
NUMPY_EDITS = (
    (b"\nimport sys\n", b"\nimport sys\nsys.setdlopenflags(1)  # RTLD_LAZY\n"),
    (b"    _sanity_check()\n", b""),
)
NUMPY_ALGEBRA = "libscipy_openblas"
FARSHORE_PARTS = ("agent", "blocks", "wire")
FARSHORE_MODULES = ("__init__.py", "contract/__init__.py", "contract/faults.py")
# The resolver loads these by name while it runs; since glibc 2.34 they are part of libc itself.
NAME_SERVICES = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
CPU_FLAGS = {  # numpy's names of what it was built for -> what /proc/cpuinfo calls it
    "X86_V2": ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"),
    "X86_V3": ("avx2", "bmi1", "bmi2", "fma", "movbe"),
}


@dataclass(frozen=True)
class Entry:
    """A file of the bundle: its path inside, its content or where that is, its mode."""

    path: str
    source: Path | bytes
    mode: int = 0o644

    def read(self) -> bytes:
        """Return the content."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


@dataclass(frozen=True)
class Contents:
    """All files of a bundle, sorted by path, and what the machine must have to run it."""

    entries: tuple[Entry, ...]
    kernel: tuple[int, int, int]
    cpu_flags: tuple[str, ...]

    def digest(self) -> str:
        """Return the SHA-256 over every path, mode and content: equal inputs, equal digest."""
        total = hashlib.sha256()
        for entry in self.entries:
            content = hashlib.sha256(entry.read()).hexdigest()
            total.update(f"{entry.path}\0{entry.mode:o}\0{content}\n".encode())
        return total.hexdigest()


def collect() -> Contents:
    """Find everything that belongs into the bundle.

    Raises:
        StopFault: this host cannot build it: no glibc, another processor, or a package is missing.
    """
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    loader = Path(read_elf(interpreter.read_bytes(), interpreter).loader)
    if not loader.name.startswith("ld-linux-x86-64"):
        raise StopFault(
            f"the interpreter {interpreter} uses the loader {loader}, not that of glibc",
            "Run the process server on a distribution with glibc (Debian, Ubuntu, RHEL)",
            reason="BundleUnsupported",
        )
    library = f"{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"
    entries = [
        Entry(INTERPRETER, interpreter, 0o755),
        Entry(LOADER, loader.resolve(), 0o755),
        Entry("bin/farshore-agent", wrapper(), 0o755),
        *_standard_library(library),
        *_packages(f"{library}/site-packages"),
        *_shipped_hooks(),
    ]
    libraries = _libraries(str(loader), entries)
    entries += [Entry(f"lib/{name}", path.resolve(), 0o755) for name, path in libraries.items()]
    unique = {entry.path: entry for entry in entries}
    kernels = [kernel for path in libraries.values() if (kernel := read_elf(path.read_bytes(), path).kernel)]
    return Contents(tuple(unique[path] for path in sorted(unique)), max(kernels, default=(3, 2, 0)), _cpu_flags())


def _standard_library(target: str) -> Iterator[Entry]:
    source = Path(sysconfig.get_path("stdlib"))
    for entry in _tree(source, target, STDLIB_LEFT_OUT, top_only=True):
        if not entry.path.startswith(f"{target}/config-"):
            yield entry
    for directory in {source / "lib-dynload", Path(sysconfig.get_config_var("DESTSHARED"))}:
        for path in sorted(directory.glob("*.so")):
            if path.name.partition(".")[0] in EXTENSIONS:
                yield Entry(f"{target}/lib-dynload/{path.name}", path, 0o755)


def _packages(target: str) -> Iterator[Entry]:
    yield from _numpy(_package("numpy"), f"{target}/numpy")
    for name in ("blake3", "zstandard"):
        yield from (
            entry for entry in _tree(_package(name), f"{target}/{name}", frozenset()) if "cffi" not in entry.path
        )
    engine = _package("farshore_engine")
    for module in FARSHORE_MODULES:
        yield Entry(f"{target}/farshore_engine/{module}", engine / module)
    for part in FARSHORE_PARTS:
        yield from _tree(engine / part, f"{target}/farshore_engine/{part}", frozenset())


def _shipped_hooks() -> Iterator[Entry]:
    """The hooks once more, where people find them and can link to them from the machine's hooks directory."""
    for path in sorted((_package("farshore_engine") / "agent/shipped").iterdir()):
        yield Entry(f"hooks/{path.name}", path, 0o755)


def _numpy(source: Path, target: str) -> Iterator[Entry]:
    """numpy without its linear algebra library.

    The agent only works on bitmaps, and locks its memory: that library would be 50 MiB of the machine's. Its
    functions are bound when they are first called, so nothing misses them (a call to one would end the process).
    """
    init = (source / "__init__.py").read_bytes()
    slim = all(init.count(found) == 1 for found, _ in NUMPY_EDITS)
    for found, replacement in NUMPY_EDITS:
        init = init.replace(found, replacement) if slim else init
    for entry in _tree(source, target, NUMPY_LEFT_OUT):
        name = Path(entry.path).name
        if name.startswith(NUMPY_TEST_PARTS):
            continue
        if slim and entry.path == f"{target}/__init__.py":
            yield Entry(entry.path, init)
        elif slim and entry.mode & 0o100:
            yield Entry(entry.path, without_needed(entry.read(), NUMPY_ALGEBRA), entry.mode)
        else:
            yield entry
    if not slim and (source.parent / "numpy.libs").is_dir():
        yield from _tree(source.parent / "numpy.libs", f"{target}.libs", frozenset())


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise StopFault(
            f"the Python package {name} is not installed here",
            "Install farshore with its extra `processserver`",
            reason="BundleIncomplete",
        )
    return Path(spec.origin).parent


def _tree(source: Path, target: str, left_out: frozenset[str], *, top_only: bool = False) -> Iterator[Entry]:
    for folder, folders, files in os.walk(source):
        relative = Path(folder).relative_to(source)
        skip = left_out if not top_only or relative == Path() else frozenset({"tests", "test"})
        folders[:] = sorted(f for f in folders if f not in skip and f != "__pycache__")
        for name in sorted(files):
            if name in skip or name.endswith((".pyc", ".pyi", ".a", ".pxd", ".pyx", ".exe", ".h", ".c")):
                continue
            path = Path(folder) / name
            shared = ".so" in name
            yield Entry((Path(target) / relative / name).as_posix(), path, 0o755 if shared else 0o644)


def _libraries(loader: str, entries: list[Entry]) -> dict[str, Path]:
    """Every library that a file of the bundle needs and that does not travel beside it (name -> file)."""
    carried = {Path(entry.path).name for entry in entries}
    found: dict[str, Path] = {}
    for entry in entries:
        data = entry.read() if entry.mode & 0o100 else b""
        if not is_elf(data) or set(read_elf(data, entry.path).needed) <= carried | set(found):
            continue  # in the second case all of them were resolved before, and so was what they need
        with tempfile.NamedTemporaryFile(suffix=".so") as copy:
            path = entry.source
            if isinstance(path, bytes):
                path = Path(copy.name)
                path.write_bytes(data)
            found |= {n: p for n, p in shared_libraries(loader, path).items() if n not in carried}
    for name in NAME_SERVICES:
        path = found["libc.so.6"].parent / name
        if path.exists():
            found[name] = path
    return found


def _cpu_flags() -> tuple[str, ...]:
    from numpy._core._multiarray_umath import __cpu_baseline__ as baseline  # type: ignore[import-not-found]

    return tuple(sorted({flag for level in baseline for flag in CPU_FLAGS.get(level, ())}))
