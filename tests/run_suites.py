"""Runs the test suites, each in a pytest of its own, two at a time, and adds up what they found.

    python tests/run_suites.py [SUITE ...] [-- PYTEST ARGUMENTS]

Suites that ran apart share no fixtures, so a suite that leaves something behind is found out by its own failures.
What a suite printed is shown when it ends. The last line is the total: `N passed, N failed`. An error in a fixture
counts as a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
SUITES = ("unit", "contract", "azure", "machine", "cluster", "e2e")
AT_ONCE = 2
LONGEST_FIRST = ("machine", "cluster", "e2e", "azure", "unit", "contract")
"""The order in which suites are begun, so that those that run side by side end at about the same time."""
NEED_ROOT = ("azure", "machine", "e2e")
NO_TESTS = 5
"""Exit code of pytest when it collected nothing."""


_OUTPUT = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What one suite found, and how long it took in seconds."""

    suite: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def main(arguments: list[str]) -> int:
    """Run the named suites, or all; give 0 if every test passed and there were some."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, options = arguments[:split] or list(SUITES), arguments[split + 1 :]
    unknown = set(chosen) - set(SUITES)
    if unknown:
        print(f"unknown suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    barred = [suite for suite in NEED_ROOT if suite in chosen]
    if barred and os.geteuid() != 0:
        print(
            f"the suites {' and '.join(barred)} make network namespaces and loop devices: run them as root, or only "
            "the others, as `make test-unit` does",
            file=sys.stderr,
        )
        return 2
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda suite: run(suite, options), [suite for suite in LONGEST_FIRST if suite in chosen])
        outcomes = sorted(found, key=lambda one: SUITES.index(one.suite))
    print("\n" + "\n".join(line(outcome) for outcome in outcomes))
    passed, failed = sum(one.passed for one in outcomes), sum(one.failed for one in outcomes)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed else 1


def run(suite: str, options: list[str]) -> Outcome:
    """Run one suite, show its output when it has ended, and read what it found from its JUnit report."""
    say(f"== {suite} begins")
    report = ROOT / "build" / "test-reports" / f"{suite}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"--junitxml={report}",
        "--durations=5",
        f"tests/{suite}",
        *options,
    ]
    code = 0
    if any((ROOT / "tests" / suite).glob("**/test_*.py")):
        ran = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        code = ran.returncode
        say(f"== {suite}\n{ran.stdout.decode(errors='replace').rstrip()}")
    passed, failed, skipped = read(report) if report.is_file() else (0, 0, 0)
    if code not in (0, NO_TESTS) and not failed:
        failed = 1  # pytest itself broke, or was killed: what it did not run is not passed
    return Outcome(suite, passed, failed, skipped, time.monotonic() - began)


def say(text: str) -> None:
    """Print without another suite's output in the middle."""
    with _OUTPUT:
        print(text, flush=True)


def read(report: Path) -> tuple[int, int, int]:
    """Give (passed, failed, skipped) of a JUnit report."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = sum(1 for case in cases if case.find("failure") is not None or case.find("error") is not None)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    return len(cases) - failed - skipped, failed, skipped


def line(outcome: Outcome) -> str:
    """Give the suite's row of the summary."""
    if outcome.passed + outcome.failed + outcome.skipped == 0:
        return f"{outcome.suite:10} no tests"
    skipped = f", {outcome.skipped} skipped" if outcome.skipped else ""
    return f"{outcome.suite:10} {outcome.seconds:6.0f} s  {outcome.passed} passed, {outcome.failed} failed{skipped}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
