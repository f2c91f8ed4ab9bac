"""`farshore profile`: what was measured, and what follows from it."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from farshore_cli import churn, serviceprofile
from farshore_cli.churn import SCRIPT, from_machine, from_points, growth, parse, spacing
from farshore_cli.commands import points as points_command
from farshore_cli.main import build
from farshore_cli.sizing import DAY, MONTH, Assumptions, Prices, Sample, kept_changes, size
from farshore_engine.contract.assignment import Retention, Source, SSHCredentials
from farshore_engine.contract.points import Consistency, RecoveryPoint

NOW = datetime(2030, 1, 8, tzinfo=UTC)
GIB = 1 << 30
DISK = 64 * GIB
SAMPLES = st.lists(
    st.builds(
        Sample, st.floats(1, 86400), st.integers(0, 1 << 36), st.one_of(st.none(), st.integers(0, 1 << 36))
    ),
    max_size=20,
)  # fmt: skip
RETENTIONS = st.builds(
    Retention, keep_all=st.timedeltas(timedelta(0), timedelta(days=30)), hourly=st.integers(0, 100),
    daily=st.integers(0, 60), weekly=st.integers(0, 52),
)  # fmt: skip
DISKS = st.integers(1 << 20, 1 << 45)


def assume(**given: Any) -> Assumptions:
    return Assumptions(**given)


@given(SAMPLES, DISKS, RETENTIONS)
def test_nothing_is_negative_and_the_busiest_is_the_most(samples: list[Sample], disk: int, keep: Retention) -> None:
    found = size(samples, disk, assume(retention=keep))
    assert found.busiest >= found.average * 0.999999 >= 0
    assert min(found.link_average, found.link_busiest, found.link_first, found.spool, found.storage) >= 0
    assert found.storage >= found.storage_first
    assert found.spool <= 2 * disk * found.ratio + 1, "no outage changes more of the disks than there is"


@given(SAMPLES, DISKS, RETENTIONS, st.integers(2, 9))
def test_more_changes_never_take_less(samples: list[Sample], disk: int, keep: Retention, factor: int) -> None:
    given_, more = assume(retention=keep, ratio=0.5), [Sample(s.seconds, s.written * factor) for s in samples]
    small, large = size(samples, disk, given_), size(more, disk, given_)
    for name in ("average", "busiest", "link_average", "link_busiest", "spool", "storage", "monthly_sent"):
        assert getattr(large, name) >= getattr(small, name), name


@given(SAMPLES, DISKS, RETENTIONS, st.timedeltas(timedelta(0), timedelta(days=30)))
def test_keeping_longer_never_takes_less(samples: list[Sample], disk: int, keep: Retention, longer: timedelta) -> None:
    more = keep.model_copy(update={"keep_all": keep.keep_all + longer, "weekly": keep.weekly + 1})
    small, large = (size(samples, disk, assume(retention=one, ratio=1.0)) for one in (keep, more))
    assert large.storage >= small.storage * (1 - 1e-9) - 1


@given(SAMPLES, DISKS, st.floats(0.01, 4), st.floats(0.01, 4))
def test_all_that_is_sent_and_stored_goes_with_the_ratio(
    samples: list[Sample], disk: int, one: float, two: float
) -> None:
    first, second = size(samples, disk, assume(ratio=one)), size(samples, disk, assume(ratio=two))
    for name in ("link_average", "link_first", "storage", "spool", "monthly_sent"):
        assert getattr(first, name) * two == pytest.approx(getattr(second, name) * one, rel=1e-6, abs=10)


@given(SAMPLES, DISKS, st.floats(0, 10), st.floats(0, 10))
def test_the_cost_is_what_the_prices_say(samples: list[Sample], disk: int, stored: float, sent: float) -> None:
    found = size(samples, disk, assume(prices=Prices(stored, sent, "EUR")))
    assert found.cost_month == pytest.approx(found.storage / GIB * stored + found.monthly_sent / GIB * sent)
    assert size(samples, disk, assume()).cost_month is None, "no price is made up"


def test_a_calculation_that_can_be_followed() -> None:
    """1 MiB/s all day, half of it stored, points every 5 minutes, all of a day and 7 daily ones kept."""
    mib = 1 << 20
    samples = [Sample(300.0, 300 * mib, 150 * mib) for _ in range(288)]
    keep = Retention(keep_all=timedelta(days=1), daily=7)
    found = size(samples, DISK, assume(retention=keep, link=4 * mib, outage=timedelta(hours=1)))
    assert (found.average, found.busiest, found.ratio, found.measured_seconds) == (mib, mib, 0.5, DAY)
    assert found.link_average == found.link_busiest == 0.625 * mib
    assert found.rpo_seconds == 300 + 150 / 4
    assert found.first_seconds == DISK * 0.5 / (4 * mib)
    assert found.spool == (3600 + 300) * mib * 0.5
    kept = DAY * mib + 6 * DISK  # all points of a day; six more days, of which each has changed every block
    assert DAY * mib > DISK and found.storage == (DISK + kept) * 0.5
    assert found.monthly_sent == MONTH * mib * 0.5
    assert found.notes == ()


def test_a_tier_holds_no_more_than_the_disks_for_each_point() -> None:
    keep = Retention(keep_all=timedelta(0), weekly=4)
    assert kept_changes(1e9, DISK, keep) == 4 * DISK


@pytest.mark.parametrize(
    ("samples", "given_", "word"),
    [
        ([Sample(60, 1)], {}, "measured for"),
        ([Sample(DAY, 1)], {}, "without compression"),
        ([Sample(DAY, 1 << 40, 1 << 40)], {"link": 1000}, "without end"),
        ([Sample(DAY, 100, 100), Sample(10, 1 << 30, 1 << 30)], {"link": 1 << 20}, "catch up later"),
    ],
    ids=["short", "no ratio", "too slow a link", "busy hours"],
)
def test_what_limits_the_answer_is_said(samples: list[Sample], given_: dict[str, Any], word: str) -> None:
    assert any(word in note for note in size(samples, DISK, assume(**given_)).notes)


def point(minutes: int, slot: int, changed: int = 100, epoch: int = 1) -> RecoveryPoint:
    return RecoveryPoint(
        name=f"p-{slot}", slot=slot, time=NOW - timedelta(days=1) + timedelta(minutes=minutes), epoch=epoch,
        consistency=Consistency.CRASH, bytes_changed=changed, bytes_stored=changed // 4, disk_bytes=GIB,
    )  # fmt: skip


def test_only_neighbouring_points_are_measured() -> None:
    """Slot 3 was pruned: what 4 holds says nothing of the time since 2. The writer of 6 began anew."""
    points = [point(0, 1, 10**9), point(5, 2), point(15, 4), point(20, 5, 40), point(25, 6, 10**9, epoch=2)]
    found = from_points(points, timedelta(days=7), NOW)
    assert found == [Sample(300.0, 100, 25), Sample(300.0, 40, 10)]
    assert from_points(points, timedelta(hours=1), NOW) == []
    assert spacing(points) == timedelta(minutes=5)
    assert spacing(points[:1]) is None


def test_the_counters_of_this_kernel_are_read() -> None:
    shown = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    for name, (size_, written) in parse(shown).items():
        assert not name.startswith(("loop", "ram")) and size_ > 0 and written >= 0


def test_counters_are_read_in_sectors_and_restarts_are_seen() -> None:
    line = "sda 2048 10 0 80 5 7 3 {} 9 0 0 0"
    before, after = parse(line.format(1000)), parse(line.format(1600) + "\nsdb 0 1 1 1 1 1 1 1\nnonsense\n")
    assert before == {"sda": (1 << 20, 512000)} and growth(before, after) == 600 * 512
    assert growth(after, before) == 1000 * 512, "the machine was started anew"


class Server:
    """A real SSH server on loopback whose machine has one disk that is written to at each look."""

    def __init__(self) -> None:
        self.looks = 0
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.loop = asyncio.new_event_loop()
        self.port = 0
        self.up = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        assert self.up.wait(60)

    def serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.listen())
        self.up.set()
        self.loop.run_forever()

    async def listen(self) -> None:
        connections = self.connections

        class Login(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                connections.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return password == "let-me-in"

        keys = [asyncssh.generate_private_key("ssh-ed25519")]
        self.listener = await asyncssh.create_server(
            Login, "127.0.0.1", 0, server_host_keys=keys, process_factory=self.answer
        )
        self.port = self.listener.get_port()

    def answer(self, process: asyncssh.SSHServerProcess[str]) -> None:
        self.looks += 1
        process.stdout.write(f"sda 2097152 10 0 80 5 7 3 {self.looks * 2048} 9 0 0 0\n")
        process.exit(0)

    def stop(self) -> None:
        async def close() -> None:
            self.listener.close()
            await self.listener.wait_closed()
            for one in self.connections:
                one.abort()
                await one.wait_closed()
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(close(), self.loop)
        self.thread.join(120)
        self.loop.close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def test_a_machine_without_an_agent_is_measured_over_ssh(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import SecretStr

    login = SSHCredentials(password=SecretStr("let-me-in"))
    said: list[str] = []
    looks = itertools.count()  # so much time passes between two looks, however long they take
    monkeypatch.setattr(churn, "time", SimpleNamespace(monotonic=lambda: next(looks) * 0.5))
    samples, disks = from_machine(
        Source(address="127.0.0.1", port=server.port, credentials=login),
        timedelta(seconds=4), timedelta(seconds=0.5), said.append,
    )  # fmt: skip
    assert disks == GIB and len(samples) == server.looks - 1 == len(said) == 8
    assert all(one.written == 1 << 20 and one.stored is None for one in samples)


@pytest.mark.parametrize("output", ["table", "json"])
def test_the_command_shows_the_answer_and_its_assumptions(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime.now(UTC) - timedelta(hours=2)
    shown = [point(0, slot).model_copy(update={"time": start + timedelta(minutes=5 * slot)}) for slot in range(1, 13)]
    keep = Retention(keep_all=timedelta(hours=48), daily=5)
    monkeypatch.setattr(points_command, "read_points", lambda vm, namespace, *, explain: (shown, [], keep))
    monkeypatch.setattr(serviceprofile, "find", lambda vm, namespace: None)
    asked = ["profile", "web-01", "-o", output, "--link", "1Mi", "--price-stored", "0.02", "--currency", "EUR"]
    done = CliRunner().invoke(build(), asked, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    if output == "json":
        found = json.loads(done.stdout)
        assert found["ratio"] == 0.25 and found["assumptions"]["intervalSeconds"] == 300
        assert found["assumptions"]["daily"] == 5 and found["assumptions"]["priceGibSent"] is None
        assert found["diskBytes"] == GIB and found["costMonth"] > 0
    else:
        for word in ("link, first copy", "every point of 2 days", "0.02 a GiB stored, sending not priced", "EUR"):
            assert word in done.stdout


@pytest.mark.parametrize(
    "options",
    [[], ["web-01", "--address", "10.0.0.4"], ["--address", "10.0.0.4"], ["--address", "a", "--every", "soon"]],
    ids=["neither", "both", "no login", "no duration"],
)
def test_wrong_options_are_refused_with_the_remedy(options: list[str]) -> None:
    done = CliRunner().invoke(build(), ["profile", *options])
    assert done.exit_code != 0
