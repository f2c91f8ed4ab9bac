"""The end of a part of the soak: a warm replica is moved through all visible points, and the vault is checked."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.soak.machines import SoakMachine
from tests.soak.site import Site

from farshore_engine.contract.faults import StopFault
from farshore_engine.hydrate.raw import hydrate, update
from farshore_engine.vault.check import check_machine
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.reader import PointReader, PointSpoiled


def compare_all(site: Site, machine: SoakMachine, may_be_spoiled: bool = False) -> int:
    """Restore every visible point and compare it; returns how many were exact. Spoiled ones are noted in the site."""
    vault = site.vault_of(machine)
    place = site.directory / "replica"
    exact, before = 0, None
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        for point in site.points(machine):
            try:
                images = _move(vault, before, point, place)
                before = point
            except PointSpoiled as fault:
                before = None
                site.spoiled.add((machine.name, point.manifest.name))
                if not may_be_spoiled:
                    site.wrong.append(f"{machine.name} {point.manifest.name} is spoiled: {fault}")
                continue
            wrong = len(site.wrong)
            site.compare(machine, point, images)
            exact += len(site.wrong) == wrong
    finally:
        vault.close()
        shutil.rmtree(place, ignore_errors=True)
    return exact


def _move(vault: MachineVault, before: StoredPoint | None, point: StoredPoint, place: Path) -> dict[str, Path]:
    reader = PointReader(vault, point)
    images = {}
    for number, disk in enumerate(reader.disks):
        image = place / f"{number}.raw"
        try:
            if before is None:
                raise StopFault("there is no replica", "make one")
            update(PointReader(vault, before), reader, disk.id, image, threads=2)
        except PointSpoiled:
            raise
        except StopFault:
            image.unlink(missing_ok=True)
            hydrate(reader, disk.id, image, threads=2)
        images[disk.id] = image
    return images


def check_vault(site: Site, machine: SoakMachine, points: bool = False) -> list[str]:
    """Check a machine's vault with every byte; return the findings, or the names of the points that they spoil."""
    vault = site.vault_of(machine)
    try:
        report = check_machine(vault, read_data=True)
    finally:
        vault.close()
    if points:
        return list(report.spoiled)
    return [f"{machine.name}: vault check: {finding.name}: {finding.why}" for finding in report.findings]
