"""Reads what the bundle builder must know of an ELF file: its loader, the libraries it needs, the kernel it needs.

Only 64-bit little-endian files are understood, which is what x86-64 Linux has. The format is described in elf(5); the
ABI note in the Linux Standard Base, "Linux ABI note tag".
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.contract.faults import StopFault

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
DYNAMIC = struct.Struct("<QQ")
NOTE = struct.Struct("<III")
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
DT_NEEDED, DT_STRTAB, DT_SONAME = 1, 5, 14
NT_GNU_ABI_TAG = 1
MACHINE_X86_64 = 62


@dataclass(frozen=True)
class ElfFile:
    """What an ELF file asks for.

    Args:
        loader: path of its dynamic loader (PT_INTERP), empty for a library.
        needed: names of the libraries it needs itself (DT_NEEDED).
        kernel: oldest kernel it runs on, from its GNU ABI note; None if it has none.
    """

    loader: str
    needed: tuple[str, ...]
    soname: str
    kernel: tuple[int, int, int] | None


def is_elf(data: bytes) -> bool:
    """Whether the content starts like an ELF file."""
    return data[:4] == b"\x7fELF"


def read_elf(data: bytes, path: Path | str) -> ElfFile:
    """Read an ELF file for x86-64; `path` only names it in a fault.

    Raises:
        StopFault: it is not one.
    """
    if len(data) < HEADER.size or data[:6] != b"\x7fELF\x02\x01":
        raise _not_ours(path)
    fields = HEADER.unpack_from(data)
    if fields[2] != MACHINE_X86_64:
        raise _not_ours(path)
    offset, count = fields[5], fields[10]
    headers = [PROGRAM_HEADER.unpack_from(data, offset + i * PROGRAM_HEADER.size) for i in range(count)]
    loader, soname = "", ""
    needed: tuple[str, ...] = ()
    kernel = None
    for kind, _, start, _, _, size, _, _ in headers:
        if kind == PT_INTERP:
            loader = data[start : start + size].rstrip(b"\0").decode()
        elif kind == PT_DYNAMIC:
            needed, soname = _dynamic(data, headers, start, size)
        elif kind == PT_NOTE:
            kernel = _abi_note(data[start : start + size]) or kernel
    return ElfFile(loader, needed, soname, kernel)


def shared_libraries(loader: str, path: Path) -> dict[str, Path]:
    """Return every library that the loader maps for `path`, recursively: name as asked for -> real file.

    The loader itself resolves them (run path, environment, its cache), exactly as it will when the file is run.

    Raises:
        StopFault: one of them is not to be found.
    """
    done = subprocess.run([loader, "--list", str(path)], capture_output=True, text=True, check=False)
    found: dict[str, Path] = {}
    for line in done.stdout.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if "not found" in line or (not arrow and done.returncode != 0):
            raise StopFault(
                f"{path} needs the library {name}, which is not installed here",
                "Install it on the host that builds the agent bundle",
                reason="LibraryMissing",
            )
        if arrow:
            found[name] = Path(rest.rpartition(" (0x")[0])
    return found


def without_needed(data: bytes, prefix: str) -> bytes:
    """Return the ELF file without its need of the libraries whose names start with `prefix`.

    The symbols of such a library stay unresolved; with lazy binding that matters only to who calls them.
    """
    changed = bytearray(data)
    offset, count = (fields := HEADER.unpack_from(data))[5], fields[10]
    headers = [PROGRAM_HEADER.unpack_from(data, offset + i * PROGRAM_HEADER.size) for i in range(count)]
    for kind, _, start, _, _, size, _, _ in headers:
        if kind != PT_DYNAMIC:
            continue
        entries = [DYNAMIC.unpack_from(data, at) for at in range(start, start + size, DYNAMIC.size)]
        text = _strings(data, headers, entries)
        kept = [(tag, value) for tag, value in entries if tag != DT_NEEDED or not text(value).startswith(prefix)]
        kept += [(0, 0)] * (len(entries) - len(kept))
        changed[start : start + size] = b"".join(DYNAMIC.pack(*entry) for entry in kept)
    return bytes(changed)


def _strings(data: bytes, headers: list[tuple[int, ...]], entries: list[tuple[int, ...]]) -> Callable[[int], str]:
    """The reader of the dynamic section's string table, whose address is mapped back to its place in the file."""
    table = next((value for tag, value in entries if tag == DT_STRTAB), 0)
    strings = 0
    for kind, _, offset, address, _, length, _, _ in headers:
        if kind == PT_LOAD and address <= table < address + length:
            strings = offset + table - address
    return lambda at: data[strings + at : data.index(b"\0", strings + at)].decode()


def _dynamic(data: bytes, headers: list[tuple[int, ...]], start: int, size: int) -> tuple[tuple[str, ...], str]:
    entries = [DYNAMIC.unpack_from(data, at) for at in range(start, start + size, DYNAMIC.size)]
    text = _strings(data, headers, entries)
    needed = tuple(text(value) for tag, value in entries if tag == DT_NEEDED)
    return needed, next((text(value) for tag, value in entries if tag == DT_SONAME), "")


def _abi_note(notes: bytes) -> tuple[int, int, int] | None:
    at = 0
    while at + NOTE.size <= len(notes):
        name_size, size, kind = NOTE.unpack_from(notes, at)
        name = notes[at + NOTE.size : at + NOTE.size + name_size]
        content = at + NOTE.size + (name_size + 3) // 4 * 4
        if kind == NT_GNU_ABI_TAG and name == b"GNU\0" and size == 16:
            system, major, minor, patch = struct.unpack_from("<IIII", notes, content)
            return (major, minor, patch) if system == 0 else None
        at = content + (size + 3) // 4 * 4
    return None


def _not_ours(path: Path | str) -> StopFault:
    return StopFault(
        f"{path} is not an x86-64 ELF file",
        "Build the agent bundle on an x86-64 Linux host with glibc",
        reason="BundleUnsupported",
    )
