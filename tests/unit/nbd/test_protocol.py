"""The server against clients that speak well, badly, too much, or stop in the middle."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.nbd import client as nbd
from tests.unit.nbd.client import Client, Refused, meta, name_data

from farshore_engine.contract.faults import StopFault
from farshore_engine.nbd.device import DeviceError, Extent
from farshore_engine.nbd.protocol import Error
from farshore_engine.nbd.server import NbdServer, TcpAddress

SIZE = 300_000


class MemoryDevice:
    """A disk in memory whose last 100 bytes cannot be read."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.content = bytearray(os.urandom(SIZE))
        self.size = SIZE
        self.read_only = read_only
        self.flushed = 0
        self.gate = threading.Event()
        self.gate.set()

    def at_hand(self, offset: int, length: int) -> bool:
        return offset < SIZE // 2

    def read(self, offset: int, length: int) -> Sequence[memoryview]:
        if offset >= SIZE // 2:
            self.gate.wait(60)
        if offset + length > SIZE - 100:
            raise DeviceError(Error.EIO, "damaged")
        half = length // 2
        return [
            memoryview(self.content)[offset : offset + half],
            memoryview(self.content)[offset + half : offset + length],
        ]

    def write(self, offset: int, data: memoryview) -> None:
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int, *, keep_space: bool) -> None:
        self.content[offset : offset + length] = bytes(length)

    def trim(self, offset: int, length: int) -> None:
        self.zero(offset, length, keep_space=False)

    def flush(self) -> None:
        self.flushed += 1

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, Extent]]:
        for at in range(offset, offset + length, 1000):
            hole = Extent.HOLE if at // 3000 % 2 else Extent.DATA
            yield min(1000, offset + length - at), hole


@pytest.fixture
def device() -> MemoryDevice:
    return MemoryDevice()


@pytest.fixture
def place(device: MemoryDevice, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "nbd.sock"
    with NbdServer({"sda": device, "sdb": MemoryDevice(read_only=True)}, path):
        yield path
    assert not path.exists()


@pytest.mark.parametrize("structured", [False, True], ids=["simple replies", "structured replies"])
def test_what_is_written_is_read(place: Path, device: MemoryDevice, structured: bool) -> None:
    with Client(place) as client:
        client.go("sda", structured=structured)
        assert client.size == SIZE
        assert client.read(5, 1000) == device.content[5:1005]
        assert client.read(0, 0) == b""
        client.write(70, b"hello")
        assert client.read(69, 7) == device.content[69:76]
        assert device.content[70:75] == b"hello"
        client.call(nbd.WRITE_ZEROES, 70, 5)
        client.call(nbd.TRIM, 80, 5)
        assert not any(client.read(70, 5) + client.read(80, 5))
        client.call(nbd.FLUSH)
        client.write(1, b"x", flags=nbd.FUA)
        assert device.flushed == 2
        client.request(nbd.DISC)
        assert client.hung_up()


@pytest.mark.parametrize("structured", [False, True], ids=["simple replies", "structured replies"])
@pytest.mark.parametrize(
    ("export", "request_", "error"),
    [
        pytest.param("sda", (nbd.READ, SIZE - 50, 50), nbd.EIO, id="damaged"),
        pytest.param("sda", (nbd.READ, SIZE - 1, 2), nbd.EINVAL, id="read past the end"),
        pytest.param("sda", (nbd.READ, 1 << 63, 1), nbd.EINVAL, id="read far past the end"),
        pytest.param("sda", (nbd.WRITE, SIZE, 1, b"x"), nbd.ENOSPC, id="write past the end"),
        pytest.param("sda", (nbd.TRIM, SIZE, 1), nbd.ENOSPC, id="trim past the end"),
        pytest.param("sda", (nbd.READ, 0, 1, b"", 1 << 15), nbd.EINVAL, id="unknown flag"),
        pytest.param("sda", (nbd.CACHE, 0, 1), nbd.EINVAL, id="a command that was not offered"),
        pytest.param("sda", (999, 0, 1), nbd.EINVAL, id="unknown command"),
        pytest.param("sda", (nbd.BLOCK_STATUS, 0, 1), nbd.EINVAL, id="block status that was not agreed on"),
        pytest.param("sdb", (nbd.WRITE, 0, 1, b"x"), nbd.EPERM, id="write to a read-only disk"),
        pytest.param("sdb", (nbd.WRITE_ZEROES, 0, 1), nbd.EPERM, id="zeros to a read-only disk"),
        pytest.param("sdb", (nbd.TRIM, 0, 1), nbd.EPERM, id="trim a read-only disk"),
    ],
)
def test_a_refused_request_leaves_the_connection_whole(
    place: Path, structured: bool, export: str, request_: tuple[int, int, int], error: int
) -> None:
    with Client(place) as client:
        client.go(export, structured=structured)
        with pytest.raises(Refused) as caught:
            client.call(*request_)
        assert caught.value.error == error
        assert len(client.read(0, 10)) == 10


def test_block_status(place: Path) -> None:
    with Client(place) as client:
        client.go("sda", allocation=True)
        assert client.status(0, 7000) == [(3000, 0), (3000, 3), (1000, 0)]
        assert client.status(2000, 2000, flags=nbd.REQ_ONE) == [(1000, 0)]
        with pytest.raises(Refused):
            client.status(0, 0)


def test_requests_do_not_wait_for_each_other(place: Path, device: MemoryDevice) -> None:
    device.gate.clear()
    with Client(place) as client:
        client.go("sda")
        slow = client.request(nbd.READ, SIZE // 2, 10)
        quick = client.request(nbd.READ, 0, 10)
        assert client.reply(10)[0] == quick
        device.gate.set()
        assert client.reply(10)[0] == slow


def test_options_are_answered(place: Path) -> None:
    with Client(place) as client:
        client.greet()
        names = [data[4:] for kind, data in client.option(nbd.OPT_LIST) if kind == nbd.SERVER]
        assert names == [b"sda", b"sdb"]
        kinds = [kind for kind, _ in client.option(nbd.OPT_INFO, name_data("sdb", 3))]
        assert kinds == [nbd.INFO, nbd.INFO, nbd.ACK]
        assert client.option(nbd.OPT_LIST_META, meta("sda"))[-1][0] == nbd.ERR_INVALID, "no structured replies yet"
        client.option(nbd.OPT_STRUCTURED)
        assert client.option(nbd.OPT_LIST_META, meta("sda"))[0][1][4:] == b"base:allocation"
        assert client.option(nbd.OPT_SET_META, meta("sda", "qemu:dirty-bitmap:x")) == [(nbd.ACK, b"")]
        assert client.option(nbd.OPT_ABORT) == [(nbd.ACK, b"")]
        assert client.hung_up()


@pytest.mark.parametrize(
    ("number", "data", "expected"),
    [
        pytest.param(4242, b"?", nbd.ERR_UNSUP, id="unknown option"),
        pytest.param(nbd.OPT_STARTTLS, b"", nbd.ERR_POLICY, id="TLS"),
        pytest.param(nbd.OPT_LIST, b"x", nbd.ERR_INVALID, id="a list with data"),
        pytest.param(nbd.OPT_STRUCTURED, b"x", nbd.ERR_INVALID, id="structured replies with data"),
        pytest.param(nbd.OPT_GO, b"", nbd.ERR_INVALID, id="go without data"),
        pytest.param(nbd.OPT_GO, struct.pack(">I", 1 << 31) + b"x", nbd.ERR_INVALID, id="a name that is too long"),
        pytest.param(nbd.OPT_GO, name_data("sda")[:-1], nbd.ERR_INVALID, id="go cut short"),
        pytest.param(nbd.OPT_GO, name_data("sda") + b"x", nbd.ERR_INVALID, id="go with more behind it"),
        pytest.param(nbd.OPT_GO, name_data("sdz"), nbd.ERR_UNKNOWN, id="an export that is not there"),
        pytest.param(nbd.OPT_GO, struct.pack(">I", 2) + b"\xff\xfe\0\0", nbd.ERR_INVALID, id="a name that is no text"),
        pytest.param(nbd.OPT_SET_META, meta("sda") + b"x", nbd.ERR_INVALID, id="contexts with more behind them"),
        pytest.param(
            nbd.OPT_SET_META, meta("sda")[:-4] + b"\xff" * 4, nbd.ERR_INVALID, id="four thousand million contexts"
        ),
    ],
)
def test_a_refused_option_leaves_the_handshake_whole(place: Path, number: int, data: bytes, expected: int) -> None:
    with Client(place) as client:
        client.greet()
        client.option(nbd.OPT_STRUCTURED)
        client.structured = True
        assert client.option(number, data)[-1][0] == expected
        assert client.option(nbd.OPT_GO, name_data("sda"))[-1][0] == nbd.ACK
        assert len(client.read(0, 9)) == 9


@pytest.mark.parametrize("export", ["sda", ""], ids=["named", "the first"])
@pytest.mark.parametrize("flags", [1, 3], ids=["with zeros", "without zeros"])
def test_an_old_client(place: Path, device: MemoryDevice, export: str, flags: int) -> None:
    with Client(place) as client:
        client.greet(flags)
        client.send(struct.pack(">8sII", b"IHAVEOPT", nbd.OPT_EXPORT_NAME, len(export)) + export.encode())
        size, _ = struct.unpack(">QH", client.exactly(10))
        assert size == SIZE
        if flags == 1:
            assert client.exactly(124) == bytes(124)
        assert client.read(3, 3) == device.content[3:6]


HELLO = struct.pack(">I", 3)
OPTION = struct.pack(">8sII", b"IHAVEOPT", nbd.OPT_GO, 9) + name_data("sda")
REQUEST = struct.pack(">IHHQQI", 0x25609513, 0, nbd.READ, 1, 0, 8)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(struct.pack(">I", 0), id="not fixed newstyle"),
        pytest.param(struct.pack(">I", 0xFF), id="unknown client flags"),
        pytest.param(HELLO + b"GET / HTTP/1.1\r\n", id="HTTP"),
        pytest.param(HELLO + struct.pack(">8sII", b"IHAVEOPT", nbd.OPT_GO, 1 << 30), id="an option of a gigabyte"),
        pytest.param(HELLO + struct.pack(">8sII", b"IHAVEOPT", nbd.OPT_LIST, 0) * 70, id="options without end"),
        pytest.param(
            HELLO + struct.pack(">8sII", b"IHAVEOPT", nbd.OPT_EXPORT_NAME, 3) + b"sdz", id="no such export, old style"
        ),
        pytest.param(HELLO + OPTION + b"\0" * 28, id="no request"),
        pytest.param(HELLO + OPTION + REQUEST + b"\xff" * 28, id="no request behind one"),
        pytest.param(
            HELLO + OPTION + struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 1, 0, (32 << 20) + 1), id="a huge write"
        ),
    ],
)
def test_who_does_not_speak_the_protocol_is_hung_up_on(place: Path, said: bytes) -> None:
    with Client(place) as client, Client(place) as other:
        other.go("sda")
        client.send(said)
        assert client.hung_up()
        assert len(other.read(0, 5)) == 5, "others are not disturbed"


@pytest.mark.parametrize(
    "said", [b"", HELLO[:2], HELLO, HELLO + OPTION[:7], HELLO + OPTION, HELLO + OPTION + REQUEST[:9],
             HELLO + OPTION + REQUEST, HELLO + OPTION + struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 1, 0, 99)],
    ids=["at once", "in the flags", "before an option", "in an option", "before a request", "in a request",
         "before the reply", "in the data of a write"],
)  # fmt: skip
def test_a_client_may_leave_at_any_moment(place: Path, device: MemoryDevice, said: bytes) -> None:
    before = bytes(device.content)
    with Client(place) as client:
        client.send(said)
    with Client(place) as client:
        client.go("sda")
        assert client.read(0, 100) == before[:100]
    assert bytes(device.content) == before


def test_a_read_of_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    device = MemoryDevice()
    device.size = 1 << 40
    with NbdServer({"big": device}, tmp_path / "s"), Client(tmp_path / "s") as client:
        client.go()
        with pytest.raises(Refused) as caught:
            client.read(0, (32 << 20) + 1)
        assert caught.value.error == nbd.EOVERFLOW


def test_a_client_that_takes_no_answers_is_left_when_the_server_ends(tmp_path: Path) -> None:
    device = MemoryDevice()
    with NbdServer({"sda": device}, tmp_path / "s"):
        client = Client(tmp_path / "s").go()
        for _ in range(200):
            client.socket.settimeout(0.2)
            try:
                client.request(nbd.READ, 0, 100_000)
            except TimeoutError:
                break
    client.socket.close()


def test_only_the_owner_opens_the_socket(place: Path) -> None:
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_socket_that_a_killed_server_left_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with NbdServer({"sda": MemoryDevice()}, path):
        with Client(path) as client:
            client.go()
        with pytest.raises(StopFault) as caught, NbdServer({"sda": MemoryDevice()}, path):
            pass
        assert caught.value.reason == "CannotListen"
        with Client(path) as client:
            client.go()


def test_on_loopback(device: MemoryDevice) -> None:
    with NbdServer({"sda": device}, TcpAddress(port=0)) as server, Client(server.port) as client:
        client.go("sda")
        assert client.read(1, 2) == device.content[1:3]
        assert server.uri == f"nbd://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    "text", ["0.0.0.0:10809", "192.0.2.1:10809", "[::]:10809", "example.org:10809", "127.0.0.1:x", "80000"]
)
def test_it_does_not_listen_where_others_could_connect(text: str) -> None:
    with pytest.raises(StopFault):
        TcpAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:2", "::1", 2), ("localhost:3", "127.0.0.1", 3), ("4", "127.0.0.1", 4)],
)
def test_addresses_of_this_host(text: str, host: str, port: int) -> None:
    assert TcpAddress.parse(text) == TcpAddress(host, port)


@given(said=st.binary(max_size=200), after=st.sampled_from([b"", HELLO, HELLO + OPTION, HELLO + OPTION + REQUEST[:8]]))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_bytes_do_harm(place: Path, device: MemoryDevice, said: bytes, after: bytes) -> None:
    device.read_only = True  # valid writes would be no harm, but they would change what is compared
    with Client(place) as client:
        try:
            client.send(after + said)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.hung_up()
        except OSError:
            pass  # hung up on before everything was sent
    with Client(place) as client:
        client.go("sda")
        assert client.read(0, 64) == device.content[:64]
