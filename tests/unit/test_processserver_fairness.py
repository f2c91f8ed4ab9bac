"""One large first copy leaves bandwidth, encoders and room in the spool to the others. Counts and orders, no times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from farshore_engine.processserver.bandwidth import BURST_SECONDS, FairBucket
from farshore_engine.processserver.budget import Cancelled, SpoolBudget
from farshore_engine.processserver.encoders import FairEncoders

MIB = 1 << 20
WAIT = 60.0
TRIES = 8
"""How often a share is measured by the clock: a busy machine spoils some measurements, and never all of them."""


def never() -> bool:
    return False


def working(*work: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    return threads


# -- bandwidth ---------------------------------------------------------------------------------------------------------


def test_a_greedy_machine_gets_no_more_than_its_share_while_others_want_theirs() -> None:
    tries = [shares_of_three()]
    while not fair_shares(tries[-1]) and len(tries) < TRIES:
        tries.append(shares_of_three())
    assert fair_shares(tries[-1]), tries


def fair_shares(seen: dict[str, int]) -> bool:
    most = 2 * seen["small"] + 2 * MIB
    return max(seen["greedy"], seen["other"]) <= most and seen["greedy"] >= seen["small"] / 2


def shares_of_three() -> dict[str, int]:
    bucket = FairBucket(lambda: 16 * MIB, time.monotonic)
    taken = {"greedy": 0, "other": 0, "small": 0}
    over = threading.Event()

    def take(machine: str, size: int) -> Callable[[], None]:
        def work() -> None:
            while not over.is_set():
                try:
                    bucket.take(machine, size, over.is_set)
                except Cancelled:
                    return
                taken[machine] += size

        return work

    threads = working(take("greedy", MIB), take("other", MIB), take("small", MIB // 16))
    deadline = time.monotonic() + WAIT
    while taken["small"] < 4 * MIB and time.monotonic() < deadline:
        time.sleep(0.01)
    seen = dict(taken)
    over.set()
    for thread in threads:
        thread.join(WAIT)
    assert seen["small"] >= 4 * MIB
    return seen


def test_machines_together_keep_the_limit() -> None:
    """Each had the whole limit: ten first copies took ten times what the appliance was given."""
    bucket = FairBucket(lambda: 8 * MIB, time.monotonic)
    began, total, lock, over = time.monotonic(), [0], threading.Lock(), threading.Event()

    def work(machine: str) -> Callable[[], None]:
        def take() -> None:
            while not over.is_set():
                try:
                    bucket.take(machine, MIB // 4, over.is_set)
                except Cancelled:
                    return
                with lock:
                    total[0] += MIB // 4

        return take

    threads = working(*(work(f"m{n}") for n in range(10)))
    time.sleep(1.0)
    with lock:
        seen, elapsed = total[0], time.monotonic() - began
    over.set()
    for thread in threads:
        thread.join(WAIT)
    assert seen <= 8 * MIB * (elapsed + BURST_SECONDS) + MIB // 4


def test_a_limit_that_is_lifted_lets_everybody_go_at_once() -> None:
    limit = [1]
    bucket = FairBucket(lambda: limit[0], time.monotonic)
    bucket.take("a", 100 * MIB, never)  # the debt of a day
    done = threading.Event()

    def take() -> None:
        bucket.take("b", MIB, never)
        done.set()

    working(take)
    assert not done.wait(0.2)
    limit[0] = 0
    assert done.wait(WAIT)


def test_a_wait_for_bandwidth_can_be_given_up() -> None:
    bucket = FairBucket(lambda: 1, time.monotonic)
    bucket.take("a", MIB, never)
    with pytest.raises(Cancelled):
        bucket.take("a", MIB, lambda: True)


def test_who_was_quiet_is_owed_nothing() -> None:
    """A machine that slept through the night must not be given the morning."""
    tries = [turns_after_a_quiet_night()]
    while not 5 <= tries[-1].count("busy") <= 15 and len(tries) < TRIES:
        tries.append(turns_after_a_quiet_night())
    assert 5 <= tries[-1].count("busy") <= 15, tries


def turns_after_a_quiet_night() -> list[str]:
    clock = [0.0]
    bucket = FairBucket(lambda: MIB, lambda: clock[0])
    for _ in range(100):
        clock[0] += 1.0
        bucket.take("busy", MIB, never)
    clock[0] += 1.0
    order: list[str] = []
    gate, over = threading.Lock(), threading.Event()

    def take(machine: str) -> Callable[[], None]:
        def work() -> None:
            while not over.is_set():
                try:
                    bucket.take(machine, MIB, over.is_set)
                except Cancelled:
                    return
                with gate:
                    order.append(machine)

        return work

    threads = working(take("busy"), take("quiet"))
    deadline = time.monotonic() + WAIT
    while len(order) < 20 and time.monotonic() < deadline:
        clock[0] += 0.2
        time.sleep(0.005)
    over.set()
    for thread in threads:
        thread.join(WAIT)
    return order[:20]


# -- encoders ----------------------------------------------------------------------------------------------------------


def test_encoders_serve_machines_in_turn_however_long_their_queues_are() -> None:
    encoders = FairEncoders(1)
    order: list[str] = []
    gate = threading.Event()
    encoders.lane("first").submit(gate.wait, WAIT)
    for _ in range(50):
        encoders.lane("greedy").submit(order.append, "greedy")
    last = [encoders.lane("meek").submit(order.append, "meek") for _ in range(5)][-1]
    gate.set()
    last.result(WAIT)
    encoders.shutdown()
    assert order[:10] == ["greedy", "meek"] * 5
    assert len(order) == 55, "shutdown lets what was accepted end"


def test_what_an_encoder_raises_reaches_who_asked_and_nobody_else() -> None:
    encoders = FairEncoders(2)
    bad = encoders.lane("a").submit(int, "x")
    good = encoders.lane("a").submit(int, "7")
    assert good.result(WAIT) == 7
    assert isinstance(bad.exception(WAIT), ValueError)
    encoders.shutdown()
    with pytest.raises(RuntimeError):
        encoders.submit(int, "1")


# -- the spool ---------------------------------------------------------------------------------------------------------


def test_a_greedy_machine_fills_the_common_half_and_leaves_the_others_theirs() -> None:
    budget = SpoolBudget(80)
    greedy, meek = budget.share("greedy"), budget.share("meek")
    taken = 0
    with pytest.raises(Cancelled):
        while True:
            greedy.take(1, lambda: True)
            taken += 1
    assert taken == 60, "its own quarter and the common half"
    for _ in range(20):
        meek.take(1, lambda: True)
    assert budget.used == 80
    with pytest.raises(Cancelled):
        meek.take(1, lambda: True)


def test_a_machine_alone_may_use_all_of_the_spool() -> None:
    share = SpoolBudget(80).share("only")
    for _ in range(80):
        share.take(1, lambda: True)
    assert share.used == 80


def test_room_that_comes_free_goes_to_the_machine_that_has_least() -> None:
    budget = SpoolBudget(100)
    greedy = budget.share("greedy")
    greedy.take(100, never)  # it was alone
    late = budget.share("late")
    order: list[str] = []

    def take(name: str) -> Callable[[], None]:
        def work() -> None:
            budget.share(name).take(10, never)
            order.append(name)

        return work

    threads = working(take("greedy"))
    deadline = time.monotonic() + WAIT
    while not budget.waits("greedy") and time.monotonic() < deadline:
        time.sleep(0.005)
    threads += working(take("late"))
    while not budget.waits("late") and time.monotonic() < deadline:
        time.sleep(0.005)
    assert budget.pressed
    greedy.add(-10)
    threads[1].join(WAIT)
    assert order == ["late"]
    greedy.add(-90)
    threads[0].join(WAIT)
    assert order == ["late", "greedy"]
    assert (greedy.used, late.used, budget.used) == (10, 10, 20)


def test_a_machine_that_leaves_gives_its_part_back() -> None:
    budget = SpoolBudget(80)
    first, second = budget.share("first"), budget.share("second")
    second.take(5, never)
    second.add(-5)
    second.close()
    first.take(80, lambda: True)
    assert budget.used == 80
