"""A soak of the real parts: machines under load, kills with -9, drills, and every point compared with its freeze.

    python -m tests.soak.run --minutes 30

Three parts: undisturbed (two fifths of the time; here the interval between points is measured), kills of agents,
process server and hydrator at random moments (two fifths), both in a directory vault with fsync; and Azurite as the
vault, killed with -9 too (one fifth): it loses what it acknowledged, so a point restores exactly or is named as
spoiled. Beside all of it run simulated schedules (tests/simulation). A failed promise fails the soak; a missed number
is only told.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from azure.storage.blob import BlobServiceClient
from tests.machine.replication_rig import azure_vault, directory_vault
from tests.soak.final import check_vault, compare_all
from tests.soak.machines import ROOT, environment
from tests.soak.rows import Row, table, write
from tests.soak.site import Site

from farshore_cli.dev.azurite import Azurite

LATE = 20.0  # seconds between two points


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--machines", type=int, default=3)
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between two points")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="leave logs and vault in their directory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)  # so that disks and processes are cleaned up then too
    directory = Path(tempfile.mkdtemp(prefix="farshore-soak-"))
    print(f"soak of {options.minutes:g} minutes, seed {options.seed}, in {directory}", flush=True)
    seconds = options.minutes * 60
    site = Site(directory, options.machines, options.interval, max(seconds / 3, 60), random.Random(options.seed))
    rows: list[Row] = []
    simulation = simulate(seconds * 0.9)
    azurite: Azurite | None = None
    try:
        site.open(directory_vault(directory / "vault"))
        for machine in site.machines:
            machine.start_load(seconds)
        watcher = threading.Thread(target=watch, args=(site, time.monotonic()), daemon=True)
        watcher.start()
        undisturbed(site, seconds * 0.4)
        killed(site, seconds * 0.4)
        rows += judge_directory(site)
        azurite = Azurite(directory / "azurite")
        rows += on_azurite(site, azurite, seconds * 0.2)
    except Exception as error:  # noqa: BLE001 - told as a row, after all is cleaned up
        import traceback

        traceback.print_exc()
        site.wrong.append(f"the soak ended early: {error!r}")
    finally:
        site.close()
        if azurite is not None:
            azurite.stop()
    rows += summary(site, simulation)
    for text in site.wrong:
        print(f"WRONG {text}")
    print(table(rows))
    about = {
        "minutes": options.minutes,
        "machines": options.machines,
        "seed": options.seed,
        "kills": site.kills,
        "memory": site.memory,
    }
    write(ROOT / "build" / "soak.json", rows, about | {"load": os.getloadavg()[0], "wrong": site.wrong})
    failed = [row.name for row in rows if row.must and not row.met]
    if not failed and not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    print("soak: " + (f"FAILED: {', '.join(failed)}; logs in {directory}" if failed else "passed"), flush=True)
    return 1 if failed else 0


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def simulate(seconds: float) -> subprocess.Popen[str]:
    """Run simulated schedules beside the real thing."""
    first = int(time.time()) % 10_000_000
    command = [sys.executable, "-m", "tests.simulation", "--seeds", f"{first}-{first + 10**6}"]
    command += ["--seconds", f"{seconds:.0f}", "--keep-going", "--lines", "60"]
    return subprocess.Popen(
        ["nice", "-n", "19", *command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def watch(site: Site, began: float) -> None:
    """Note memory and points, and tell each minute how it goes."""
    told = began
    while not site.ended.wait(5):
        site.note_memory()
        for machine in site.machines:
            site.points(machine)
        if time.monotonic() - told >= 60:
            told = time.monotonic()
            counts = [sum(1 for key in list(site.seen) if key[0] == m.name) for m in site.machines]
            newest = [
                max((s.time for k, s in list(site.seen.items()) if k[0] == m.name), default=0.0) for m in site.machines
            ]
            ages = [f"{time.time() - at:.0f} s" for at in newest]
            checked = sum(1 for seen in list(site.seen.values()) if seen.checked)
            print(
                f"{(told - began) / 60:5.1f} min  {site.part:12}  points {counts}, newest {ages} old, "
                f"{checked} compared, kills {site.kills}, spool {site.spooled() >> 20} MiB, wrong {len(site.wrong)}",
                flush=True,
            )


def undisturbed(site: Site, seconds: float) -> None:
    """Only load and drills."""
    site.part = "undisturbed"
    until = time.monotonic() + seconds
    while time.monotonic() < until and not site.wrong:
        site.drill(site.chance.choice(site.machines))
        time.sleep(min(max(until - time.monotonic(), 0), site.chance.uniform(1, 5)))


def killed(site: Site, seconds: float) -> None:
    """Kill something with -9 every now and then, drills going on."""
    site.part = "kills"
    until = time.monotonic() + seconds
    drills = threading.Thread(target=_drill_until, args=(site, until), daemon=True)
    drills.start()
    while time.monotonic() < until and not site.wrong:
        time.sleep(site.chance.uniform(2, 30))
        kill_one(site)
    drills.join()


def _drill_until(site: Site, until: float) -> None:
    while time.monotonic() < until and not site.wrong:
        site.drill(site.chance.choice(site.machines))
        time.sleep(site.chance.uniform(0.5, 3))


def kill_one(site: Site) -> None:
    """Kill an agent, the process server or the hydrator; the first two are started again."""
    what = site.chance.choice(("agent", "server", "server", "hydrator"))
    if what == "agent":
        machine = site.chance.choice(site.machines)
        machine.kill()
        time.sleep(site.chance.uniform(0, 2))
        machine.start()
    elif what == "server":
        site.kill_server()
        time.sleep(site.chance.uniform(0, 3))
        site.start_server()
    elif site.hydrator is not None and site.hydrator.poll() is None:
        site.hydrator.kill()
    else:
        return
    site.kills[what] = site.kills.get(what, 0) + 1


def wait_new_points(site: Site, count: int, patience: float) -> float:
    """Wait until every machine has `count` points of freezes from now on; return the seconds, or -1."""
    began, since = time.monotonic(), time.time()
    while time.monotonic() - began < patience:
        if all(sum(p.manifest.time.timestamp() > since for p in site.points(m)) >= count for m in site.machines):
            return time.monotonic() - began
        time.sleep(1)
    return -1.0


def judge_directory(site: Site) -> list[Row]:
    """After the kills: replication heals, the spool empties, every visible point restores, the vault is whole."""
    site.part = "healing"
    healed = wait_new_points(site, 2, 180 + 4 * site.interval)
    for machine in site.machines:
        machine.stop_load()
    deadline = time.monotonic() + 120
    while (left := site.spooled()) and time.monotonic() < deadline:
        time.sleep(0.2)
    site.part = "comparing"
    site.stop_server()  # so that no point expires while it is compared
    compared = sum(compare_all(site, machine) for machine in site.machines)
    damaged = [text for machine in site.machines for text in check_vault(site, machine)]
    site.wrong += damaged
    return [
        Row("two points of each machine after the last kill", round(healed, 1), "s", "comes", healed >= 0),
        Row("spool after the load", left, "bytes", "empty", left == 0),
        Row("visible points restored and compared at the end", compared, "points", "all exact", not site.wrong),
        Row("vault check --read-data", len(damaged), "findings", "none", not damaged),
    ]


def on_azurite(site: Site, azurite: Azurite, seconds: float) -> list[Row]:
    """The same with a store that forgets what it acknowledged when it is killed."""
    site.part = "azurite"
    azurite.start()
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        service.create_container("soak")
    site.use(azure_vault(azurite.connection_string, azurite.account_url, "soak"))
    for machine in site.machines:
        machine.start_load(seconds + 300)
    until = time.monotonic() + seconds
    wait_new_points(site, 1, 120)
    kills = 0
    while time.monotonic() < until or not kills:
        time.sleep(site.chance.uniform(10, 30))
        process = azurite.process
        assert process is not None
        os.kill(process.pid, 9)
        kills += 1
        time.sleep(site.chance.uniform(1, 4))
        azurite.start()
        site.kills["azurite"] = kills
    healed = wait_new_points(site, 2, 240 + 4 * site.interval)
    for machine in site.machines:
        machine.stop_load()
    site.stop_server()
    exact = spoiled = 0
    for machine in site.machines:
        named = set(check_vault(site, machine, points=True))
        good, bad = compare_all(site, machine, may_be_spoiled=True), site.spoiled_of(machine)
        exact, spoiled = exact + good, spoiled + len(bad)
        for name in sorted(bad - named):
            site.wrong.append(f"{machine.name} {name} does not restore, and vault check does not name it")
        for name in sorted(named - bad):
            site.wrong.append(f"{machine.name} {name} is named as spoiled by vault check, and restores")
    return [
        Row("two points of each machine after Azurite was killed last", round(healed, 1), "s", "comes", healed >= 0),
        Row(
            "points in Azurite: exact",
            exact,
            "points",
            "exact or named",
            not site.wrong,
            note=f"{spoiled} named as spoiled",
        ),
    ]


def summary(site: Site, simulation: subprocess.Popen[str]) -> list[Row]:
    """Return the rows of the whole run."""
    gaps, growth = [], []
    for machine in site.machines:
        times = sorted(s.time for k, s in site.seen.items() if k[0] == machine.name and s.part == "undisturbed")
        gaps += [later - earlier for earlier, later in itertools.pairwise(times[1:])]
    for name, samples in site.memory.items():
        if len(samples) >= 12:  # of a minute and more; the first third is how it grows to its working size
            steady = samples[len(samples) // 3 :]
            slope, size = (
                statistics.linear_regression([t / 60 for t, _ in steady], [kib for _, kib in steady])[0],
                steady[-1][1],
            )
            growth.append((slope * (steady[-1][0] - steady[0][0]) / 60 / size * 100, slope, size, name.split(" ")[0]))
    output, _ = simulation.communicate()
    line = output.strip().splitlines()[-1] if output.strip() else "nothing was simulated"
    if simulation.returncode:
        print(output[-8000:])
    late_gaps = sum(gap > LATE for gap in gaps)
    longest, middle = max(gaps, default=0.0), statistics.median(gaps) if gaps else 0.0
    percent = max((g[0] for g in growth), default=0.0)
    compared = sum(seen.checked > 0 for seen in site.seen.values())
    kills = json.dumps(site.kills)
    times = f"median {middle:.1f} s, {late_gaps} of {len(gaps)} later, load {os.getloadavg()[2]:.1f}"
    slopes = ", ".join(
        f"{who} {slope:+.0f} KiB/min at {kib / 1024:.0f} MiB" for _, slope, kib, who in sorted(growth)[-4:]
    )
    schedules = float(line.split(" ")[0]) if line[:1].isdigit() else 0.0
    simulated = simulation.returncode == 0 and schedules > 0
    exact = not site.wrong
    return [
        Row("points made", len(site.seen), "points", "", True, must=False),
        Row("points restored and compared with their freeze", compared, "points", "all exact", exact),
        Row("drills in processes that were killed", site.drills, "drills", "all exact", exact, note=kills),
        Row("longest gap, undisturbed", round(longest, 1), "s", f"<= {LATE:g}", 0 < longest <= LATE, False, times),
        Row(
            "growth of resident memory, undisturbed",
            round(percent, 1),
            "%",
            "<= 10",
            percent <= 10,
            must=False,
            note=slopes,
        ),
        Row("simulated schedules", schedules, "seeds", "no violation", simulated, note=line),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
