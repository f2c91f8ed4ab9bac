"""The first half of a connection: which export, and how it is spoken to.

Whatever a client sends here is bounded in size, number and time, and answered or refused; nothing reaches the vault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from farshore_engine.nbd.device import Device
from farshore_engine.nbd.protocol import (
    ALLOCATION_ID,
    BASE_ALLOCATION,
    FIXED_NEWSTYLE,
    INIT_MAGIC,
    NO_ZEROES,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    Info,
    Option,
    ProtocolError,
    Reply,
    Transmission,
)
from farshore_engine.nbd.stream import Stream

LONGEST_OPTION = 64 << 10  # bytes of data that are read at all
MOST_OPTIONS = 64  # of one client
LARGEST_REQUEST = 32 << 20  # bytes; what clients may assume without being told
PREFERRED_REQUEST = 64 << 10


@dataclass(frozen=True, slots=True)
class Session:
    """What was agreed on."""

    device: Device
    structured: bool
    allocation: bool  # block status may be asked for


@dataclass(frozen=True, slots=True)
class _Agreed:
    no_zeroes: bool = False
    structured: bool = False
    allocation_of: str | None = None  # the export whose block status may be asked for


class _Refused(Exception):
    """An option is answered with an error; the client may go on."""

    def __init__(self, reply: Reply, why: str) -> None:
        super().__init__(why)
        self.reply = reply


def negotiate(stream: Stream, exports: Mapping[str, Device]) -> Session | None:
    """Talk until the client chose an export; None when it wanted none. The empty name means the first export.

    Raises:
        ProtocolError: the client does not speak the protocol, or will not stop asking.
        Disconnected: it is gone.
    """
    stream.send([INIT_MAGIC + OPTION_MAGIC + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES)])
    (flags,) = struct.unpack(">I", stream.read(4))
    if flags & ~(FIXED_NEWSTYLE | NO_ZEROES) or not flags & FIXED_NEWSTYLE:
        raise ProtocolError(f"a client with the flags {flags:#x}")
    agreed = _Agreed(no_zeroes=bool(flags & NO_ZEROES))
    for _ in range(MOST_OPTIONS):
        magic, option, length = OPTION.unpack(stream.read(OPTION.size))
        if magic != OPTION_MAGIC:
            raise ProtocolError("an option does not begin with the magic number")
        if length > LONGEST_OPTION:
            raise ProtocolError(f"an option of {length} bytes")
        data = bytes(stream.read(length))
        if option == Option.ABORT:
            _answer(stream, option, Reply.ACK)
            return None
        if option == Option.EXPORT_NAME:
            return _old_style(stream, exports, data, agreed)
        try:
            agreed, session = _option(stream, exports, option, data, agreed)
        except _Refused as refused:
            _answer(stream, option, refused.reply, str(refused).encode())
            continue
        if session is not None:
            return session
    raise ProtocolError(f"more than {MOST_OPTIONS} options")


def transmission_flags(device: Device) -> int:
    """Return what the export can, as the protocol numbers it."""
    flags = Transmission.HAS_FLAGS | Transmission.FLUSH | Transmission.DF | Transmission.MULTI_CONN
    if device.read_only:
        return flags | Transmission.READ_ONLY
    return flags | Transmission.FUA | Transmission.TRIM | Transmission.WRITE_ZEROES


def _option(
    stream: Stream, exports: Mapping[str, Device], option: int, data: bytes, agreed: _Agreed
) -> tuple[_Agreed, Session | None]:
    if option in (Option.GO, Option.INFO):
        name = _describe(stream, exports, option, data)
        if option == Option.INFO:
            return agreed, None
        allocation = agreed.allocation_of == name
        return agreed, Session(_chosen(exports, name), agreed.structured, allocation)
    if option == Option.LIST:
        if data:
            raise _Refused(Reply.INVALID, "a list takes no data")
        for name in exports:
            encoded = name.encode()
            _answer(stream, option, Reply.SERVER, struct.pack(">I", len(encoded)) + encoded)
    elif option == Option.STRUCTURED_REPLY:
        if data:
            raise _Refused(Reply.INVALID, "structured replies take no data")
        agreed = replace(agreed, structured=True)
    elif option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
        agreed = _contexts(stream, exports, option, data, agreed)
    elif option == Option.STARTTLS:
        raise _Refused(Reply.POLICY, "this server speaks on this host only, without TLS")
    else:
        raise _Refused(Reply.UNSUPPORTED, "this server does not know that option")
    _answer(stream, option, Reply.ACK)
    return agreed, None


def _describe(stream: Stream, exports: Mapping[str, Device], option: int, data: bytes) -> str:
    """Answer INFO or GO and return the name that was asked for."""
    name, rest = _string(data)
    wanted = rest[2:]
    if len(rest) < 2 or len(wanted) != 2 * struct.unpack(">H", rest[:2])[0]:
        raise _Refused(Reply.INVALID, "its lengths do not add up")
    device = _chosen(exports, name)
    about = struct.pack(">HQH", Info.EXPORT, device.size, transmission_flags(device))
    _answer(stream, option, Reply.INFO, about)
    sizes = struct.pack(">HIII", Info.BLOCK_SIZE, 1, PREFERRED_REQUEST, LARGEST_REQUEST)
    _answer(stream, option, Reply.INFO, sizes)
    _answer(stream, option, Reply.ACK)
    return name


def _contexts(stream: Stream, exports: Mapping[str, Device], option: int, data: bytes, agreed: _Agreed) -> _Agreed:
    if not agreed.structured:
        raise _Refused(Reply.INVALID, "ask for structured replies first")
    name, rest = _string(data)
    _chosen(exports, name)
    if len(rest) < 4:
        raise _Refused(Reply.INVALID, "its lengths do not add up")
    queries = list(_strings(rest[4:], struct.unpack(">I", rest[:4])[0]))
    listing = option == Option.LIST_META_CONTEXT
    found = BASE_ALLOCATION in queries or (listing and (not queries or b"base:" in queries))
    if found:
        number = 0 if listing else ALLOCATION_ID
        _answer(stream, option, Reply.META_CONTEXT, struct.pack(">I", number) + BASE_ALLOCATION)
    return agreed if listing else replace(agreed, allocation_of=name if found else None)


def _old_style(stream: Stream, exports: Mapping[str, Device], data: bytes, agreed: _Agreed) -> Session:
    """Answer EXPORT_NAME, which knows no error: a name that is unknown ends the connection."""
    name = data.decode(errors="replace")
    device = exports.get(name) if name else next(iter(exports.values()))
    if device is None:
        raise ProtocolError("an export that is not there")
    padding = b"" if agreed.no_zeroes else bytes(124)
    stream.send([struct.pack(">QH", device.size, transmission_flags(device)) + padding])
    return Session(device, agreed.structured, agreed.allocation_of == name)


def _chosen(exports: Mapping[str, Device], name: str) -> Device:
    device = exports.get(name) if name else next(iter(exports.values()))
    if device is None:
        raise _Refused(Reply.UNKNOWN, f"there are: {', '.join(exports)}")
    return device


def _string(data: bytes) -> tuple[str, bytes]:
    """Split off a string behind its 32-bit length."""
    if len(data) < 4:
        raise _Refused(Reply.INVALID, "its lengths do not add up")
    (length,) = struct.unpack(">I", data[:4])
    if len(data) < 4 + length:
        raise _Refused(Reply.INVALID, "its lengths do not add up")
    try:
        return data[4 : 4 + length].decode(), data[4 + length :]
    except UnicodeDecodeError:
        raise _Refused(Reply.INVALID, "a name is not UTF-8") from None


def _strings(data: bytes, count: int) -> Iterator[bytes]:
    if count > len(data) // 4:
        raise _Refused(Reply.INVALID, "its lengths do not add up")
    for _ in range(count):
        text, data = _string(data)
        yield text.encode()
    if data:
        raise _Refused(Reply.INVALID, "its lengths do not add up")


def _answer(stream: Stream, option: int, reply: Reply, data: bytes = b"") -> None:
    stream.send([OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(data)) + data])
