"""Lying agents against a real process server, and a lying process server against a real agent, on real connections.

The conversations of a good peer are recorded, damaged from a seed, and said again. Whatever is said, the other side
goes on, holds little memory, and a good peer that comes afterwards gets right points.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from tests.machine.agent_rig import Rig, make_identity, running_agent
from tests.machine.agent_slow_disk import write_direct
from tests.machine.group_rig import POLICY, Fleet, open_fleet
from tests.machine.light_agent import Identity, LightAgent, greeting
from tests.machine.reference_peer import ReferencePeer

from farshore_engine.agent import agent as agent_module
from farshore_engine.agent import channel as module
from farshore_engine.agent.config import Server
from farshore_engine.blocks.encoded import encode, payload_of
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver import dataport
from farshore_engine.processserver import session as server_session
from farshore_engine.vault.stores import open_machine
from farshore_engine.wire.frames import (
    MAGIC,
    MAX_PAYLOAD,
    PREFIX,
    FrameKind,
    PeerClosed,
    encode_prefix,
    receive_frame,
)
from farshore_engine.wire.messages import (
    Bye,
    Consistency,
    Cut,
    Data,
    DiskInfo,
    FreezeNow,
    Frozen,
    Message,
    NeedDigests,
    PointEnd,
    PointReady,
    Progress,
    Refuse,
    Run,
    Synced,
    SyncMode,
    TakePoint,
    Welcome,
    Zeros,
    decode,
)

CONVERSATIONS = 60
GROWTH = 96 << 20  # bytes that the process may grow by, caches of threads and allocators included


def frame(message: Message, payload: bytes = b"") -> bytes:
    return encode_prefix(message.kind, message.to_header(), len(payload)) + payload


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def payload(key: bytes, *contents: bytes) -> bytes:
    return payload_of([encode(key, content)[1] for content in contents])


def good(machine: str, key: bytes, chance: random.Random) -> list[bytes]:
    """What an agent says, frame for frame; `key` is of its digests."""
    block = chance.randbytes(BLOCK_SIZE)
    end = PointEnd(
        id="p", seq=4, consistency=Consistency.CRASH, frozen_at=time.time(), freeze_seconds=0.1, precopy_rounds=1,
        frozen_bytes=0, disks=(DiskInfo("d0", "/dev/d0", 16 * BLOCK_SIZE),), machine={"hostname": "x"},
    )  # fmt: skip
    return [
        frame(greeting(machine, time.time(), f"s{chance.random()}")),
        frame(NeedDigests("d0", 0, 16)),
        frame(Data(1, "d0", (Run(0, BLOCK_SIZE),)), payload(key, block)),
        frame(
            Data(2, "d0", (Run(BLOCK_SIZE, BLOCK_SIZE), Run(4 * BLOCK_SIZE, BLOCK_SIZE))), payload(key, block, block)
        ),
        frame(Zeros(3, "d0", (Run(8 * BLOCK_SIZE, 4 * BLOCK_SIZE),))),
        frame(Progress(SyncMode.FULL, 16, 8)),
        frame(Synced(3)),
        frame(Data(4, "d0", (Run(0, BLOCK_SIZE),)), payload(key, block)),
        frame(PointReady("p")),
        frame(Frozen("p")),
        frame(end),
        frame(Bye("done")),
    ]


def damaged(frames: list[bytes], chance: random.Random) -> bytes:
    """Damage frames, or their order, or the headers in them."""
    told = list(frames)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(told))
        match chance.choice(("flip", "cut", "repeat", "swap", "drop", "lengths", "field", "noise")):
            case "flip" if told[at]:
                raw = bytearray(told[at])
                raw[chance.randrange(min(len(raw), 300))] ^= 1 << chance.randrange(8)
                told[at] = bytes(raw)
            case "cut":
                told[at] = told[at][: chance.randrange(len(told[at]) + 1)]
            case "repeat":
                told.insert(at, told[at])
            case "swap":
                other = chance.randrange(len(told))
                told[at], told[other] = told[other], told[at]
            case "drop":
                told[at] = b""
            case "lengths":
                told[at] = PREFIX.pack(MAGIC, chance.randint(0, 30), 0, chance.getrandbits(20), chance.getrandbits(22))
            case "field":
                told[at] = with_field(told[at], chance)
            case "noise":
                told[at] = chance.randbytes(chance.randint(1, 4000))
    return b"".join(told)


def with_field(told: bytes, chance: random.Random) -> bytes:
    """Replace the value of one field of a frame's header."""
    if len(told) < PREFIX.size:
        return told
    magic, kind, zero, header, payload = PREFIX.unpack_from(told)
    try:
        fields = json.loads(told[PREFIX.size : PREFIX.size + header])
        name = chance.choice(sorted(fields))
    except (ValueError, IndexError):
        return told
    fields[name] = chance.choice(
        (
            None,
            -1,
            0,
            1 << 62,
            1 << 80,
            1e308,
            "",
            "x" * 5000,
            [],
            {},
            [[0, 0]],
            [{"offset": 0, "length": 1 << 50}],
            True,
        )
    )
    text = json.dumps(fields).encode()
    return PREFIX.pack(magic, kind, zero, len(text), payload) + text + told[PREFIX.size + header :]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(server_session, "HANG_UP_AFTER", 1.0)
    monkeypatch.setattr(dataport, "HELLO_SECONDS", 1.0)
    monkeypatch.setattr(dataport, "GREETING_SECONDS", 3.0)
    monkeypatch.setattr(dataport, "HANDSHAKE_SECONDS", 2.0)
    with open_fleet(tmp_path, 1) as fleet:
        yield fleet


def has_vault(fleet: Fleet, machine: str) -> bool:
    try:
        open_machine(fleet.vault, machine).close()
    except StopFault:  # the process server makes it
        return False
    return True


def test_lying_agents_harm_nobody_and_take_no_memory(fleet: Fleet) -> None:
    machine = fleet.machines[0]
    with ExitStack() as stack:
        logs = stack.enter_context(structlog.testing.capture_logs())
        stack.enter_context(fleet.process_server())
        fleet.assign("")
        identity = fleet.identity(machine)
        fleet.wait(lambda: has_vault(fleet, machine))
        with contextlib.closing(open_machine(fleet.vault, machine)) as vault:
            key = vault.digest_key
        before = 0
        for seed in range(CONVERSATIONS):
            chance = random.Random(seed)
            with contextlib.suppress(OSError, PeerClosed), contextlib.closing(identity.dial()) as sock:
                sock.settimeout(2)
                sock.sendall(damaged(good(machine, key, chance), chance))
                sock.settimeout(0.05)
                while sock.recv(1 << 16):
                    pass
            if seed == CONVERSATIONS // 3:
                before = resident()
        grown = resident() - before
        agent = LightAgent(machine, lambda: identity)
        stack.callback(agent.stop)
        agent.start()
        fleet.wait(lambda: agent.committed, 300, fleet.troubles)
    unexpected = [entry for entry in logs if "unexpected" in entry["event"] or "goes on" in entry["event"]]
    assert not unexpected
    assert grown < GROWTH


def begun(identity: Identity, start: bytes) -> ssl.SSLSocket:
    """Dial and say something; again where the server, which has little patience here, was faster than we."""
    deadline = time.monotonic() + 120
    while True:
        try:
            sock = identity.dial()
        except OSError:
            assert time.monotonic() < deadline, "the server lets nobody in"
            continue
        try:
            sock.sendall(start)
            return sock
        except OSError:
            sock.close()
            assert time.monotonic() < deadline, "the server listens to nobody"


def test_peers_that_say_nothing_hold_a_connection_for_a_moment_only(fleet: Fleet) -> None:
    """Half-open ones, ones that never finish a frame, ones that send a header without an end."""
    machine = fleet.machines[0]
    with ExitStack() as stack:
        server = stack.enter_context(fleet.process_server())
        fleet.assign("")
        identity = fleet.identity(machine)
        held = []
        for _ in range(8):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", fleet.port)))  # never says a word
            held.append(plain)
        for start in (
            b"",
            PREFIX.pack(MAGIC, FrameKind.HELLO, 0, 1 << 20, 0) + b"{" * 100,
            frame(greeting(machine, time.time())) + PREFIX.pack(MAGIC, FrameKind.DATA, 0, 60, MAX_PAYLOAD),
        ):
            stack.enter_context(contextlib.closing(begun(identity, start)))
        listener = server._listener
        assert listener is not None
        fleet.wait(lambda: not listener._connections)
        agent = LightAgent(machine, lambda: identity)
        stack.callback(agent.stop)
        agent.start()
        fleet.wait(lambda: agent.committed, 300, fleet.troubles)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param([Data(1, "d0", (Run(0, BLOCK_SIZE),))] * 2, id="a frame that comes again"),
        pytest.param([Data(1, "other", (Run(0, BLOCK_SIZE),))], id="a disk that was not announced"),
        pytest.param([Data(1, "d0", (Run(1 << 40, BLOCK_SIZE),))], id="a block behind the end of the disk"),
        pytest.param([Zeros(1, "d0", (Run(0, 1 << 60),))], id="zeros without end"),
        pytest.param([NeedDigests("d0", 0, 1 << 40)], id="digests without end"),
        pytest.param([Frozen("never asked")], id="a freeze that nobody asked for, which is taken for a late one"),
        pytest.param([TakePoint("p", Consistency.CRASH)], id="an order to the server"),
    ],
)
def test_a_lie_ends_the_connection_or_means_nothing(fleet: Fleet, lie: list[Message]) -> None:
    machine = fleet.machines[0]
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.assign("")
        identity = fleet.identity(machine)

        def greet() -> list[Message]:
            with contextlib.closing(identity.dial()) as sock:
                sock.settimeout(10)
                sock.sendall(frame(greeting(machine, time.time())))
                heard = [answer_of(sock)]
                if isinstance(heard[0], Welcome):
                    for message in lie:
                        key = bytes.fromhex(heard[0].digest_key)
                        told = payload(key, b"x" * BLOCK_SIZE) if isinstance(message, Data) else b""
                        sock.sendall(frame(message, told))
                    with contextlib.suppress(PeerClosed, OSError):
                        sock.settimeout(2)
                        while True:
                            heard.append(answer_of(sock))
                return heard

        def welcome() -> bool:
            try:
                return isinstance(greet()[0], Welcome)
            except (PeerClosed, OSError):  # who is slow to greet is hung up on, and the liar while it speaks
                return False

        fleet.wait(welcome)
        agent = LightAgent(machine, lambda: identity)
        stack.callback(agent.stop)
        agent.start()
        fleet.wait(lambda: agent.committed, 300, fleet.troubles)
        assert not [r for r in agent.refused if r.reason not in ("NotReady",)]


def answer_of(sock: object) -> Message:
    found = receive_frame(sock)  # type: ignore[arg-type]
    message = decode(found.kind, found.header)
    assert not isinstance(message, Refuse) or message.reason == "NotReady"
    return message


def test_a_changed_bandwidth_limit_reaches_a_connected_agent_and_the_appliances_own_does_not(fleet: Fleet) -> None:
    """The appliance's limit is for all machines together, so no agent can keep it alone."""
    machine = fleet.machines[0]
    with ExitStack() as stack:
        stack.enter_context(fleet.process_server())
        fleet.control.configure(bandwidth_limit=50 << 20)
        fleet.assign("")
        agent = LightAgent(machine, lambda: fleet.identity(machine))
        stack.callback(agent.stop)
        agent.start()
        fleet.wait(lambda: agent.committed, 300, fleet.troubles)
        for limit in (7 << 20, 0):
            fleet.control.change("m00", policy=POLICY.model_copy(update={"bandwidth_limit": limit}))
            fleet.wait(lambda: agent.limits[-1] == limit)  # noqa: B023 - called at once
    assert agent.limits[0] == 0
    assert 50 << 20 not in agent.limits


class LyingPeer(ReferencePeer):
    """A process server of which some frames are damaged, from a seed, and which says what nobody asked for."""

    chance = random.Random(0)
    lies = 0.0
    told = 0

    def say(self, message: Message, payload: bytes = b"") -> None:
        if self.chance.random() >= self.lies:
            super().say(message, payload)
            return
        self.told += 1
        stream = self._stream
        if stream is None:
            return
        extra: list[Message] = [Cut("x"), FreezeNow("x"), TakePoint("never", Consistency.CRASH), Bye("go")]
        frames = [frame(message, payload), *(frame(m) for m in self.chance.sample(extra, 2))]
        with contextlib.suppress(OSError, PeerClosed), stream.send_lock:
            stream.sendall(damaged(frames, self.chance))

    def _forgotten(self) -> None:
        """Forget the session too: an agent that was lied to about what is held must compare all of it."""
        with self._turn:
            if self._forget.is_set():
                self._session = ""
            super()._forgotten()


def test_a_lying_process_server_neither_ends_nor_bloats_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module._Backoff, "next", lambda self: 0.02)
    rig = Rig(tmp_path / "rig").open()
    try:
        disk = rig.disk("", 16)
        write_direct(disk.device, os.urandom(4 << 20), 0)
        make_identity(rig.directory / "identity")
        directory = rig.directory / "peer"
        directory.mkdir()
        peer = LyingPeer(directory, rig.directory / "identity")
        peer.chance, peer.lies = random.Random(5), 0.4
        try:
            with running_agent(rig, peer=peer) as running:
                deadline = time.monotonic() + 240
                while peer.told < 80 and time.monotonic() < deadline:
                    peer.say(TakePoint(f"p{peer.told}", Consistency.CRASH))
                    time.sleep(0.02)
                assert peer.told >= 80
                before = resident()
                assert running.thread.is_alive()
                peer.lies = 0.0
                peer.lose_spool()
                peer.errors.clear()
                end = peer.take_point("truth")
                assert end.id.startswith("truth")
                assert running.verdicts[end.id] == []
                assert resident() - before < GROWTH
        finally:
            peer.close()
    finally:
        rig.close()


def test_a_server_that_floods_an_agent_is_not_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages were queued without end while the agent was reading a disk."""
    monkeypatch.setattr(module, "IN_LIMIT", 64)
    identity = make_identity(tmp_path / "identity")
    peer = socket.create_server(("127.0.0.1", 0))
    context = server_context(identity)
    with peer, ExitStack() as stack:
        config = type("Config", (), {"ca": identity / "ca.pem", "certificate": identity / "agent.pem",
                                     "key": identity / "agent.key"})  # fmt: skip
        found: list[ssl.SSLSocket] = []

        def serve() -> None:
            plain, _ = peer.accept()
            found.append(context.wrap_socket(plain, server_side=True))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        channel = module.dial(Server("127.0.0.1", peer.getsockname()[1]), module.tls_context(config))  # type: ignore[arg-type]
        stack.callback(channel.close)
        thread.join(60)
        server = stack.enter_context(found[0])
        server.settimeout(1.0)
        flood = frame(TakePoint("p" * 1000, Consistency.CRASH)) * 64
        sent = 0
        with contextlib.suppress(OSError, TimeoutError):
            while sent < 64 << 20:
                server.sendall(flood)
                sent += len(flood)
        assert sent < 64 << 20, "the flood is held back"
        assert channel._in.qsize() <= 64 + (module.RECEIVE_SIZE // 1000)
        for _ in range(200):
            assert channel.receive(60.0) is not None, "and what is handled makes room"


def server_context(identity: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(identity / "ca.pem")
    context.load_cert_chain(identity / "server.pem", identity / "server.key")
    return context
