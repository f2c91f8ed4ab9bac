"""Hydrations that the kernel kills at random moments, and that are repeated until one ends: run by test_hydrator_kills.

    python -m tests.contract.killed_hydrations JOB-AS-JSON

Each attempt is a fork of this process, which has done nothing but import; prints how many were killed. A timer of the
attempt's own kills it, which nothing in it hears of: a parent on a busy host would come too late.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from farshore_engine.hydrate import windows
from farshore_engine.hydrate.pageblob import PageBlobContainer, hydrate_page_blob, update_page_blob
from farshore_engine.hydrate.qcow2 import hydrate_qcow2
from farshore_engine.hydrate.raw import hydrate, update
from farshore_engine.hydrate.vhd import hydrate_vhd
from farshore_engine.hydrate.windows import Progress
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.reader import PointReader

TASK_SECONDS = 0.03  # a pause after each part, so that kills find work that is half done, also where this is held up

pause_seconds = TASK_SECONDS


@dataclass(frozen=True)
class Job:
    """What to do: `kind` of target, from point `base` (empty: anew) to `point`."""

    kind: str
    store: str
    machine: str
    base: str
    point: str
    image: str
    kills: int
    seed: int
    account_url: str = ""
    container: str = ""
    account_key: str = ""


def attempt(job: Job) -> None:
    """Do all of it."""
    windows.WINDOW, windows.SPAN, windows.RECORDS = 24, 1 << 18, 8
    vault = MachineVault.open(DirectoryStore(Path(job.store)), bytes(range(32)), job.machine)
    reader = PointReader(vault, vault.find(job.point))
    base = PointReader(vault, vault.find(job.base)) if job.base else None
    image = Path(job.image)
    if job.kind == "page blob":
        account = PageBlobContainer.connect(job.account_url, job.container, job.account_key)
        blob = account.disk("disk.vhd", "ps-1")
        if base is None:
            hydrate_page_blob(reader, "sda", blob, threads=2, report=pause)
        else:
            update_page_blob(base, reader, "sda", blob, threads=2, report=pause)
    elif base is not None:
        update(base, reader, "sda", image, threads=2, report=pause)
    else:
        work = {"raw": hydrate, "vhd": hydrate_vhd, "qcow2": hydrate_qcow2}[job.kind]
        work(reader, "sda", image, threads=2, report=pause)


def pause(_: Progress) -> None:
    time.sleep(pause_seconds)


def killed_after(job: Job, seconds: float) -> bool:
    """Make an attempt, kill it after so long, and return whether it was killed before its end."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
            attempt(job)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it was, the fork must not go on as its parent
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM):
        raise SystemExit(f"an attempt failed with status {status}")
    return status != 0


def main() -> None:
    """Kill as often as the job says, a little later each time, then let it end."""
    job = Job(**json.loads(sys.argv[1]))
    random_ = random.Random(job.seed)
    killed, longest = 0, 0.15  # seconds: less than an attempt takes
    while killed < job.kills and killed_after(job, random_.random() * longest):
        killed, longest = killed + 1, longest * 1.25
    global pause_seconds
    pause_seconds = 0.0
    if killed == job.kills and killed_after(job, 600):
        raise SystemExit("it did not end within 600 s")
    print(killed)


if __name__ == "__main__":
    main()
