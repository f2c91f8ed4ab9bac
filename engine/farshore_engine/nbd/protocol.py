"""The numbers and layouts of the NBD protocol, after doc/proto.md of github.com/NetworkBlockDevice/nbd.

Newstyle, fixed, big-endian; simple and structured replies, and the metadata context `base:allocation`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

FIXED_NEWSTYLE = 1  # handshake and client flag
NO_ZEROES = 2
BASE_ALLOCATION = b"base:allocation"
ALLOCATION_ID = 1  # how this server numbers that context
EXTENT_HOLE, EXTENT_ZERO = 1, 2
CHUNK_DONE = 1

OPTION = struct.Struct(">8sII")  # magic, option, length of its data
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, reply type, length
REQUEST = struct.Struct(">IHHQQI")  # magic, flags, type, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
CHUNK = struct.Struct(">IHHQI")  # magic, flags, type, cookie, length
EXTENT = struct.Struct(">II")  # length, flags


class Option(IntEnum):
    """What a client asks for before transmission."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(IntEnum):
    """How an option is answered."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    UNSUPPORTED = 0x80000001
    POLICY = 0x80000002
    INVALID = 0x80000003
    UNKNOWN = 0x80000006
    TOO_BIG = 0x80000009


class Info(IntEnum):
    """What is told of an export."""

    EXPORT = 0
    BLOCK_SIZE = 3


class Transmission(IntFlag):
    """What an export can."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    FLUSH = 4
    FUA = 8
    TRIM = 32
    WRITE_ZEROES = 64
    DF = 128
    MULTI_CONN = 256


class Command(IntEnum):
    """What a client asks for in transmission."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """How it is to be done."""

    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8
    FAST_ZERO = 16


class Chunk(IntEnum):
    """Parts of a structured reply."""

    NONE = 0
    OFFSET_DATA = 1
    BLOCK_STATUS = 5
    ERROR = 0x8001


class Error(IntEnum):
    """Error numbers on the wire; other values of errno are sent as EINVAL."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


@dataclass(frozen=True, slots=True)
class Request:
    """A request's header; `length` bytes of data follow a write."""

    flags: int
    command: int
    cookie: int
    offset: int
    length: int

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Request:
        """Read a header; raises ProtocolError when it is none."""
        magic, flags, command, cookie, offset, length = REQUEST.unpack(data)
        if magic != REQUEST_MAGIC:
            raise ProtocolError("a request does not begin with the magic number")
        return cls(flags, command, cookie, offset, length)


class ProtocolError(Exception):
    """The peer does not speak the protocol: it is hung up on."""


class Disconnected(Exception):
    """The peer is gone."""
