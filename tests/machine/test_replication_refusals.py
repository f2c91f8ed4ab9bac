"""Peers that are not who they should be, or not well-behaved, are refused without harm to anybody else."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
import zstandard
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.machine import light_agent
from tests.machine.memory_controlplane import Authority, machine_names
from tests.machine.replication_rig import MACHINE, Stage, open_stage

from farshore_engine.blocks.encoded import encode, payload_of
from farshore_engine.contract.replication import State
from farshore_engine.wire.frames import PROTOCOL, PeerClosed, receive_frame, send_frame
from farshore_engine.wire.messages import (
    Ack,
    Baseline,
    Bye,
    Data,
    DiskInfo,
    Hello,
    Message,
    Refuse,
    Run,
    Welcome,
    decode,
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with open_stage(tmp_path_factory.mktemp("refusals")) as stage, stage.process_server() as server:
        stage.assign()
        stage.control.wait_report(MACHINE, lambda r: r.state is State.WAITING_FOR_AGENT)
        stage.control.wait_for(lambda: server._certified)  # until then its data port lets nobody in
        yield stage


def identity(directory: Path, authority: Authority, names: list[x509.GeneralName]) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate, key_file = directory / "peer.pem", directory / "peer.key"
    certificate.write_text(authority.certify(key.public_key(), "peer", names))
    form = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, key_file


def dial(stage: Stage, certificate: Path | None, key: Path | None, most: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
    return light_agent.dial(stage.data_port, stage.control.authority.pem, certificate, key, most)


def hello(machine: str, protocol: int = PROTOCOL) -> Hello:
    return Hello(
        protocol=protocol,
        agent_version="test",
        machine_id=machine,
        boot_id="b",
        tracker="none",
        tracker_reason="",
        disks=(DiskInfo("d1", "loop9", 1 << 20),),
        machine={},
        baseline=Baseline("s", "", 0, ""),
        clock=0.0,
    )


def say(sock: ssl.SSLSocket, message: Message, payload: bytes = b"") -> None:
    send_frame(sock, message.kind, message.to_header(), payload)


def answer(sock: ssl.SSLSocket) -> Message:
    frame = receive_frame(sock)
    return decode(frame.kind, frame.header)


def own(stage: Stage) -> tuple[Path, Path]:
    home = stage.installer.directory
    return home / "agent.pem", home / "agent.key"


@pytest.mark.parametrize(
    ("names", "says", "reason"),
    [
        pytest.param(["demo.vm"], "demo.other", "WrongMachine", id="a certificate of one machine, the name of another"),
        pytest.param(["demo.other"], "demo.other", "NotAssigned", id="a machine that is not assigned here"),
    ],
)
def test_a_peer_that_is_somebody_else_is_refused_with_the_reason(
    stage: Stage, tmp_path: Path, names: list[str], says: str, reason: str
) -> None:
    pair = identity(tmp_path, stage.control.authority, [n for name in names for n in machine_names(name)])
    with dial(stage, *pair) as sock:
        say(sock, hello(says))
        refused = answer(sock)
    assert isinstance(refused, Refuse)
    assert refused.reason == reason


def test_another_protocol_is_refused_with_the_reason(stage: Stage) -> None:
    with dial(stage, *own(stage)) as sock:
        say(sock, hello(f"demo.{MACHINE}", protocol=PROTOCOL + 1))
        refused = answer(sock)
    assert isinstance(refused, Refuse)
    assert refused.reason == "Protocol"


def test_without_a_certificate_a_peer_cannot_say_hello(stage: Stage) -> None:
    with dial(stage, None, None) as sock:
        say(sock, hello(f"demo.{MACHINE}"))
        refused = answer(sock)
    assert isinstance(refused, Refuse)
    assert refused.reason == "NoCertificate"


def test_a_certificate_of_another_authority_ends_the_handshake(stage: Stage, tmp_path: Path) -> None:
    pair = identity(tmp_path, Authority.at(tmp_path / "foreign"), machine_names("demo.vm"))
    with pytest.raises((ssl.SSLError, PeerClosed, ConnectionError)), dial(stage, *pair) as sock:
        say(sock, hello("demo.vm"))
        answer(sock)


def test_a_server_certificate_cannot_speak_for_a_machine(stage: Stage, tmp_path: Path) -> None:
    pair = identity(tmp_path, stage.control.authority, [x509.DNSName("farshore-process-server")])
    with dial(stage, *pair) as sock, pytest.raises(PeerClosed):
        say(sock, hello("demo.vm"))
        answer(sock)


def test_older_tls_is_refused(stage: Stage) -> None:
    with pytest.raises(ssl.SSLError), dial(stage, *own(stage), ssl.TLSVersion.TLSv1_2):
        pass


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(struct.pack("<HBBII", 0xFA52, 1, 0, 1 << 30, 0), id="a header of a gigabyte"),
        pytest.param(struct.pack("<HBBII", 0xFA52, 99, 0, 2, 0) + b"{}", id="an unknown kind"),
        pytest.param(struct.pack("<HBBII", 0xFA52, 1, 0, 2, 0) + b"[]", id="a header that is no object"),
        pytest.param(struct.pack("<HBBII", 0xFA52, 1, 0, 7, 0) + b'{"a":1}', id="a Hello without its fields"),
    ],
)
def test_garbage_ends_the_connection_and_nothing_else(stage: Stage, garbage: bytes) -> None:
    with dial(stage, *own(stage)) as sock, pytest.raises(PeerClosed):
        sock.sendall(garbage)
        answer(sock)
    with dial(stage, *own(stage)) as sock:
        say(sock, hello(f"demo.{MACHINE}"))
        assert isinstance(answer(sock), Welcome)


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        pytest.param(Data(1, "d2", (Run(0, 65536),)), bytes(65536), id="a disk that was not announced"),
        pytest.param(Data(1, "d1", (Run(1 << 20, 65536),)), bytes(65536), id="behind the end of the disk"),
        pytest.param(Data(1, "d1", (Run(512, 65536),)), bytes(65536), id="off the grid"),
        pytest.param(Data(1, "d1", (Run(0, 65536),)), bytes(100), id="fewer bytes than its runs"),
        pytest.param(Data(1, "d1", (Run(65536, 65536), Run(0, 65536))), bytes(131072), id="runs out of order"),
        pytest.param(Data(1, "d1", (Run(0, 65536), Run(0, 65536))), bytes(131072), id="a block twice"),
    ],
)
def test_frames_that_lie_about_their_place_end_the_connection(stage: Stage, message: Data, payload: bytes) -> None:
    with dial(stage, *own(stage)) as sock:
        say(sock, hello(f"demo.{MACHINE}"))
        assert isinstance(answer(sock), Welcome)
        say(sock, message, payload)
        with pytest.raises(PeerClosed):
            while not isinstance(answer(sock), Bye):
                pass
            raise PeerClosed


def lengths(*values: int) -> bytes:
    return np.array(values, "<u4").tobytes()


BOMB = zstandard.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda good: good[:-1], "do not fit", id="a byte too few"),
        pytest.param(lambda good: good + b"x", "do not fit", id="a byte too many"),
        pytest.param(lambda good: good[:20], "bytes for 1 blocks", id="not even the digests"),
        pytest.param(lambda good: lengths(0) + good[4:36], "do not fit", id="an empty content"),
        pytest.param(lambda good: lengths(65537) + good[4:36] + bytes(65537), "do not fit", id="more than a block"),
        pytest.param(lambda good: good[:4] + bytes(32) + good[36:], "zeros", id="the digest of zeros"),
        pytest.param(lambda good: good[:4] + b"y" * 32 + good[36:], "not what", id="another digest"),
        pytest.param(lambda good: good[:36] + b"y" * (len(good) - 36), "damaged", id="noise"),
        pytest.param(lambda good: lengths(len(BOMB)) + good[4:36] + BOMB, "another size", id="a decompression bomb"),
    ],
)
def test_a_payload_that_could_not_be_restored_is_refused(
    stage: Stage, damage: Callable[[bytes], bytes], says: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        with dial(stage, *own(stage)) as sock:
            say(sock, hello(f"demo.{MACHINE}"))
            welcome = answer(sock)
            assert isinstance(welcome, Welcome)
            _, blocks = encode(bytes.fromhex(welcome.digest_key), bytes(range(256)) * 256)
            say(sock, Data(1, "d1", (Run(0, 65536),)), damage(payload_of([blocks])))
            with pytest.raises(PeerClosed):
                while not isinstance(answer(sock), Ack):
                    pass
        stage.control.wait_for(lambda: any(says in str(line) for line in logs) or None)
