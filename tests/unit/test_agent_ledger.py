"""The ledger against a model: whatever is written, sent, lost and committed, each point equals the disk at its cut."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from farshore_engine.agent.ledger import Ledger, Need
from farshore_engine.blocks import bitmap

BLOCKS = 20
DISK = "d"
ZERO = 0


def numbers(*blocks: int) -> np.ndarray:
    return np.array(blocks, dtype=np.int64)


@dataclass
class Server:
    """A process server and its vault: `replica` is what is durable, `flying` what is on the way."""

    vault: list[int] | None = None
    vault_point: str = ""
    replica: list[int] = field(default_factory=lambda: [ZERO] * BLOCKS)
    flying: list[tuple[int, dict[int, int]]] = field(default_factory=list)
    durable: int = 0
    cuts: dict[str, list[int]] = field(default_factory=dict)


class LedgerModel(RuleBasedStateMachine):
    """Random histories of one disk, a ledger and servers that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.source = [ZERO] * BLOCKS
        self.ledger = Ledger({DISK: BLOCKS})
        self.server = Server()
        self.hand: list[tuple[Need, list[int]]] = []
        self.version = 0
        self.points = 0
        self.source[3] = self.source[7] = -1  # what was there before the agent came
        self.ledger.forget_pending()
        self.ledger.begin_full(DISK)

    # -- the machine -----------------------------------------------------------------------------------------------

    @rule(block=st.integers(0, BLOCKS - 1), zero=st.booleans())
    def write(self, block: int, zero: bool) -> None:
        self.version += 1
        self.source[block] = ZERO if zero else self.version
        self.ledger.mark(DISK, numbers(block), numbers(block))

    @rule(first=st.integers(0, BLOCKS - 1), count=st.integers(1, 6))
    def write_run(self, first: int, count: int) -> None:
        self.version += 1
        last = min(first + count, BLOCKS) - 1
        self.source[first : last + 1] = [self.version] * (last + 1 - first)
        self.ledger.mark(DISK, numbers(first), numbers(last))

    @precondition(lambda self: self.points % 3 == 2)  # it heals all, so it must not hide what is not healed
    @rule(block=st.integers(0, BLOCKS - 1))
    def write_unseen(self, block: int) -> None:
        """The tracker loses a write and says so."""
        self.version += 1
        self.source[block] = self.version
        self.ledger.lost(DISK, "overflow")

    # -- the replicator --------------------------------------------------------------------------------------------

    @rule(need=st.sampled_from([Need.DIRTY, Need.UNSENT]), limit=st.integers(1, BLOCKS), start=st.integers(0, 16))
    def take(self, need: Need, limit: int, start: int) -> None:
        blocks = self.ledger.take(need, DISK, limit, start)
        if blocks.size:
            self.hand.append((need, blocks.tolist()))

    @precondition(lambda self: self.hand)
    @rule()
    def read_and_send(self) -> None:
        need, blocks = self.hand.pop(0)
        self._send(need, blocks)

    @rule(need=st.sampled_from([Need.DIRTY, Need.UNSENT]), limit=st.integers(1, BLOCKS))
    def send_some(self, need: Need, limit: int) -> None:
        """Send a batch and leave it on the way."""
        self.take(need, limit, 0)
        while self.hand:
            self.read_and_send()

    @rule(first=st.sampled_from([0, 8, 16]))
    def verify(self, first: int) -> None:
        if self.hand:
            return  # the replicator finishes a batch before it compares
        self._deliver_all()
        theirs = self.server.replica.copy()
        blocks = self.ledger.take_from(Need.UNVERIFIED, DISK, first, 8).tolist()
        equal = [b for b in blocks if theirs[b] == self.source[b]]
        self.ledger.settle(Need.UNVERIFIED, DISK, numbers(*equal))
        self._frame(Need.UNVERIFIED, [b for b in blocks if b not in equal])

    @precondition(lambda self: self.server.flying)
    @rule()
    def deliver(self) -> None:
        seq, content = self.server.flying.pop(0)
        for block, version in content.items():
            self.server.replica[block] = version
        self.server.durable = seq
        self.ledger.acknowledge(seq)

    # -- points ----------------------------------------------------------------------------------------------------

    @rule()
    def cut(self) -> None:
        while self.hand:
            self.read_and_send()
        while (blocks := self.ledger.take(Need.UNSENT, DISK)).size:
            self._send(Need.UNSENT, blocks.tolist())
        for first in (0, 8, 16):
            self.verify(first)
        blocks = self.ledger.take(Need.DIRTY, DISK)
        self._send(Need.DIRTY, blocks.tolist())
        self.points += 1
        seq = self.ledger.cut(f"p{self.points}")
        self._deliver_all()
        assert seq == self.ledger.last_seq
        assert self.server.replica == self.source
        self.server.cuts[f"p{self.points}"] = self.server.replica.copy()

    @precondition(lambda self: self.server.cuts)
    @rule(choice=st.integers(0, 9), told=st.booleans())
    def commit(self, choice: int, told: bool) -> None:
        """A point is committed, and the agent may not hear of it; earlier ones are committed by it too."""
        names = list(self.server.cuts)
        name = names[choice % len(names)]
        self.server.vault, self.server.vault_point = self.server.cuts[name], f"vault-{name}"
        for earlier in names[: names.index(name) + 1]:
            del self.server.cuts[earlier]
        if told:
            self.ledger.commit(name, f"vault-{name}")

    @precondition(lambda self: self.server.cuts)
    @rule(choice=st.integers(0, 9))
    def fail(self, choice: int) -> None:
        names = list(self.server.cuts)
        name = names[choice % len(names)]
        del self.server.cuts[name]
        self.ledger.fail(name)

    @rule()
    def sample(self) -> None:
        """What is believed clean is the same on both sides: else the sample after a point would be a false alarm."""
        if self.hand:
            return
        self._deliver_all()
        clean = self.ledger.clean(DISK, numbers(*range(BLOCKS)))
        assert [b for b in range(BLOCKS) if clean[b] and self.source[b] != self.server.replica[b]] == []

    # -- losses ----------------------------------------------------------------------------------------------------

    @rule(block=st.integers(0, BLOCKS - 1), cut=st.booleans())
    def reconnect_while_sending(self, block: int, cut: bool) -> None:
        """Frames, and perhaps a whole point, are on the way when the connection breaks."""
        self.write(block, False)
        self.send_some(Need.DIRTY, BLOCKS)
        if cut:
            self.points += 1
            self.ledger.cut(f"p{self.points}")  # its end never arrives
        self.reconnect()

    @rule()
    def reconnect(self) -> None:
        self._hang_up()
        self.ledger.resume(self.server.durable)
        assert self.ledger.can_delta(DISK)

    @rule()
    def lose_process_server(self) -> None:
        """Another one takes over with what the vault holds."""
        self._hang_up()
        old = self.server
        self.server = Server(vault=old.vault, vault_point=old.vault_point)
        self.ledger.forget_pending()
        if old.vault is None:
            self.ledger.begin_full(DISK)
            return
        self.server.replica = old.vault.copy()
        if not (self.ledger.point == old.vault_point and self.ledger.can_delta(DISK)):
            self.ledger.begin_resync(DISK)

    @precondition(lambda self: self.points % 3 == 2)
    @rule()
    def start_over(self) -> None:
        """The process server keeps its spool and asks for a comparison of everything."""
        self._hang_up()
        self.ledger.resume(self.server.durable)
        self.ledger.begin_resync(DISK)

    @rule(sent=st.booleans(), gone=st.booleans())
    def another_disk_comes(self, sent: bool, gone: bool) -> None:
        """It is written to, its frames and ours are numbered together, and it may go before they have arrived."""
        self._hang_up()
        self.ledger.fit({DISK: BLOCKS, "other": 8})
        self.ledger.resume(self.server.durable)
        if not self.ledger.can_delta("other"):
            self.ledger.begin_full("other")
        if sent:
            self.ledger.mark("other", numbers(1), numbers(3))
            blocks = self.ledger.take(Need.DIRTY, "other")
            self.server.flying.append((self.ledger.sent(Need.DIRTY, "other", blocks), {}))
        if gone:
            self._hang_up()
            self.ledger.fit({DISK: BLOCKS})
            self.ledger.resume(self.server.durable)
        assert self.ledger.can_delta(DISK)

    def _hang_up(self) -> None:
        self.hand.clear()
        self.server.flying.clear()
        self.ledger.put_back()

    def _deliver_all(self) -> None:
        while self.server.flying:
            self.deliver()

    def _send(self, need: Need, blocks: list[int]) -> None:
        zeros = [b for b in blocks if self.source[b] == ZERO] if need is Need.UNSENT else []
        self.ledger.settle(need, DISK, numbers(*zeros))
        self._frame(need, [b for b in blocks if b not in zeros])

    def _frame(self, need: Need, blocks: list[int]) -> None:
        if blocks:
            content = {b: self.source[b] for b in blocks}  # the read
            self.server.flying.append((self.ledger.sent(need, DISK, numbers(*blocks)), content))


BUDGET = settings(max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))


def test_each_cut_equals_the_source() -> None:
    run_state_machine_as_test(LedgerModel, settings=BUDGET)


def race(ledger: Ledger) -> int:
    """Write a block again after it was read and before its frame is made; return how many blocks are dirty then."""
    ledger.begin_full(DISK)
    ledger.settle(Need.UNSENT, DISK, ledger.take(Need.UNSENT, DISK))
    ledger.mark(DISK, numbers(5), numbers(5))
    blocks = ledger.take(Need.DIRTY, DISK)
    ledger.mark(DISK, numbers(5), numbers(5))
    ledger.sent(Need.DIRTY, DISK, blocks)
    return ledger.waiting(Need.DIRTY)


def test_a_write_between_read_and_send_is_remembered() -> None:
    assert race(Ledger({DISK: BLOCKS})) == 1


def test_clearing_the_mark_after_the_read_would_forget_it() -> None:
    assert race(Ledger({DISK: BLOCKS}, clear_before_read=False)) == 0


def test_marks_of_excluded_blocks_wait_until_they_are_let_in() -> None:
    ledger = Ledger({DISK: BLOCKS})
    ledger.exclude(DISK, bitmap.from_indexes(BLOCKS, numbers(4, 5, 6)))
    ledger.mark(DISK, numbers(4), numbers(7))
    assert ledger.take(Need.DIRTY, DISK).tolist() == [7]
    ledger.exclude(DISK, bitmap.empty(BLOCKS))
    assert ledger.take(Need.DIRTY, DISK).tolist() == [4, 5, 6]


def test_a_new_session_cannot_go_on_without_a_comparison() -> None:
    ledger = Ledger({DISK: BLOCKS})
    ledger.forget_pending()
    assert not ledger.can_delta(DISK)


@pytest.mark.parametrize(
    ("committed", "expected"),
    [pytest.param(True, [2], id="only what came after the committed point"), pytest.param(False, [1, 2], id="both")],
)
def test_a_lost_spool_makes_dirty_again_what_no_committed_point_carries(committed: bool, expected: list[int]) -> None:
    ledger = Ledger({DISK: BLOCKS})
    ledger.begin_full(DISK)
    ledger.settle(Need.UNSENT, DISK, ledger.take(Need.UNSENT, DISK))
    for block in (1, 2):
        ledger.mark(DISK, numbers(block), numbers(block))
        ledger.acknowledge(ledger.sent(Need.DIRTY, DISK, ledger.take(Need.DIRTY, DISK)))
        ledger.cut(f"p{block}")
    if committed:
        ledger.commit("p1", "one")
    ledger.forget_pending()
    assert ledger.take(Need.DIRTY, DISK).tolist() == expected
