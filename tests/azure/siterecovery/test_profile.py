"""`farshore profile` for a machine of Site Recovery: what that tells, what has to be measured, what it takes."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.azure.conformance.conftest import site_recovery
from tests.azure.siterecovery_sim.conftest import Cloud
from typer.testing import CliRunner

from farshore_cli import churn, serviceprofile
from farshore_cli.main import build
from farshore_cli.servicesizing import GB, MB, service_size
from farshore_cli.sizing import DAY, Assumptions, Sample, size
from farshore_operator.api import ProtectedVM
from farshore_operator.kube import client, connection

DISKS = 100 << 30


def sized(rate: float, **more: Any) -> Any:
    """A machine that changes at a rate, in bytes a second, and four times as fast for a minute."""
    samples = [Sample(DAY - 60, round(rate * (DAY - 60))), Sample(60, round(4 * rate * 60))]
    kept = more.pop("keep_all", timedelta(days=1))
    return service_size(size(samples, DISKS, Assumptions()), DISKS, kept, more.get("machine"), more.get("gib"))


@pytest.mark.parametrize(
    ("rate", "cache", "disk", "note"),
    [
        (0.4 * MB, 300, "standard", ""),
        (1.9 * MB, 300, "premium P10 or P15", ""),
        (4.9 * MB, 300, "premium P20 to P50", ""),
        (10 * MB, 600, None, "exclude a disk"),
        (12 * MB, 1000, None, "exclude a disk"),
        (30 * MB, None, None, "78188"),
    ],
    ids=["little", "a premium disk", "a large premium disk", "several disks", "a large server", "too much"],
)
def test_servers_and_disks_are_those_of_microsofts_tables(
    rate: float, cache: int | None, disk: str | None, note: str
) -> None:
    found = sized(rate)
    assert (found.cache_gb, found.disk) == (cache, disk)
    assert note in " ".join(found.notes) and bool(found.notes) == bool(note)
    assert found.day == pytest.approx(rate * DAY, rel=0.01) and found.share == pytest.approx(found.day / 2000 / GB)


def test_longer_retention_takes_more_and_prices_are_the_readers() -> None:
    short, long = (sized(MB, keep_all=timedelta(days=days), gib=0.05, machine=20.0) for days in (1, 3))
    assert long.points == 3 * short.points and long.target == short.target == DISKS
    assert short.cost_month == pytest.approx(20 + (DISKS + short.points) / (1 << 30) * 0.05)
    assert sized(MB).cost_month is None


class Objects:
    """The API as the command reads it: what the life has in its cache."""

    def __init__(self, life: Any) -> None:
        self.life = life

    def get(self, resource: Any, namespace: str, name: str) -> Any:
        return self.life.cache.get(resource.kind, "shop", name)


def test_a_protected_machine_is_measured_over_ssh_and_sized_for_site_recovery(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = site_recovery(cloud, "classic", "web1")
    asked: list[str] = []

    def measured(source: Any, *_: Any) -> tuple[list[Sample], int]:
        asked.append(source.address)
        return [Sample(DAY, 40 * GB)], DISKS

    monkeypatch.setattr(client, "Client", lambda *_: Objects(life))
    monkeypatch.setattr(connection, "from_environment", lambda: None)
    monkeypatch.setattr(churn, "from_machine", measured)
    told = CliRunner().invoke(build(), ["profile", "web1", "-n", "shop"])
    assert told.exit_code != 0 and "does not tell how fast web1 changes" in str(told.exception or told.output)
    login = ["profile", "web1", "-n", "shop", "--ask-password"]
    options = {"input": "secret\n", "env": {"COLUMNS": "200"}}
    shown = CliRunner().invoke(build(), login, **options)
    assert shown.exit_code == 0, shown.output
    for words in ("1 recovery points, the newest", "cache storage account", "cache 300 GB", "1 protected machine"):
        assert words in shown.stdout
    assert "spool" not in shown.stdout, "nothing of ours is beside it"
    found = json.loads(CliRunner().invoke(build(), [*login, "-o", "json", "--price-machine", "25"], **options).stdout)
    assert found["siteRecovery"]["day"] == 40 * GB and found["siteRecovery"]["costMonth"] == 25
    assert asked == [life.get("ProtectedVM", "web1").spec.source.address] * 2
    assert isinstance(life.get("ProtectedVM", "web1"), ProtectedVM) and serviceprofile.find("none", "shop") is None
