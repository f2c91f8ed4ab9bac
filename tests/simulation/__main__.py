"""Run schedules: `python -m tests.simulation --seed N` replays one and prints its trace; `--seeds A-B` runs many.

The order of sets must be the same in every run, so the interpreter is started again with a fixed seed for hashes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    from tests.simulation.faults import any_fault
    from tests.simulation.mutations import MUTATIONS
    from tests.simulation.schedule import run_schedule

    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one schedule and print its trace")
    parser.add_argument("--seeds", help="run the schedules A-B, and stop at the first that fails")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="build in a fault of the product first")
    parser.add_argument("--teeth", nargs="*", help="try mutations, all or those named: each must be found out")
    parser.add_argument("--keep-going", action="store_true", help="run all schedules even if some fail")
    parser.add_argument("--lines", type=int, default=200, help="lines of the trace")
    parser.add_argument("--seconds", type=float, default=0, help="begin no schedule after so many seconds")
    options = parser.parse_args()
    if options.teeth is not None:
        return teeth(options.teeth or sorted(MUTATIONS))
    first, _, last = (options.seeds or str(options.seed or 0)).partition("-")
    mutation = MUTATIONS[options.mutation] if options.mutation else None
    failed, points, steps, faults, began = [], 0, 0, 0, time.monotonic()
    count = 0
    for seed in range(int(first), int(last or first) + 1):
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        outcome = (
            run_schedule(seed, any_fault) if mutation is None else run_schedule(seed, mutation.fault, mutation.prepare)
        )
        count += 1
        points, steps, faults = points + outcome.points, steps + outcome.steps, faults + len(outcome.faults)
        if outcome.violations or options.seed is not None:
            print("\n".join(outcome.trace[-options.lines :]))
            print(f"seed {seed}: {outcome.points} points, {outcome.steps} steps, {outcome.seconds:.1f} s")
            print("\n".join(f"  fault at {text}" for text in outcome.faults))
            for text in outcome.violations:
                print(f"  VIOLATION {text}")
        if outcome.violations:
            failed.append(seed)
            if not options.keep_going:
                break
    taken = time.monotonic() - began
    print(
        f"{count} schedules, {faults} faults, {points} points, {steps} steps in {taken:.1f} s; "
        + (
            f"violations with seeds {failed}: replay with python -m tests.simulation --seed {failed[0]}"
            if failed
            else "no violation"
        ),
        flush=True,
    )
    return 1 if failed else 0


def teeth(names: list[str]) -> int:
    """Try mutations; print with which seed each is found out."""
    from tests.simulation.mutations import MUTATIONS
    from tests.simulation.schedule import run_schedule

    missed = 0
    for name in names:
        mutation, began = MUTATIONS[name], time.monotonic()
        for seed in range(mutation.seeds):
            outcome = run_schedule(seed, mutation.fault, mutation.prepare)
            if outcome.violations:
                text = outcome.violations[0].splitlines()[0]
                print(f"{name}: found with seed {seed} in {time.monotonic() - began:.1f} s: {text}", flush=True)
                break
        else:
            missed += 1
            print(f"{name}: NOT FOUND with {mutation.seeds} seeds", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
