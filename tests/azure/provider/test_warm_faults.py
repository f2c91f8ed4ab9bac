"""Azure in trouble while disks are imported from copies of a warm replica: it ends right, or stops with a remedy."""

from __future__ import annotations

from typing import Any

import pytest
from tests.azure.provider.scene import ours
from tests.azure.provider.test_faults import FAULTS, nothing_odd, persist
from tests.azure.provider.warmscene import WarmScene, change
from tests.azuresim import AzureSim

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azure.readiness import check_site
from farshore_engine.contract.assignment import AzureBlobAccess
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.site import CloudTarget
from farshore_engine.contract.tasks import TaskKind


@pytest.fixture
def small(warm: WarmScene, monkeypatch: pytest.MonkeyPatch) -> WarmScene:
    monkeypatch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 0})
    warm.disks = {"disk-os": warm.disks["disk-os"]}
    warm.take_point()
    warm.keep()
    change(warm, "disk-os", 2, 3)
    warm.point = warm.take_point()
    return warm


SELDOM = ("throttled", "broken", "request lost", "token expired", "claims challenge", "stale")
"""Those that are waited out as the rest is, so that only `make soak` plays them."""
ENDS = {"quota": "QuotaExceeded", "policy": "PolicyDenied"}
IMPORTED = ("throttled", "broken", "answer lost", "request lost", "token expired", "conflict", "claims challenge")


@pytest.mark.soak
def test_each_fault_at_the_import_of_a_disk(small: WarmScene, sim: AzureSim) -> None:
    play_all(small, sim, tuple(FAULTS))


def test_some_faults_at_the_import_of_a_disk(small: WarmScene, sim: AzureSim) -> None:
    play_all(small, sim, tuple(name for name in FAULTS if name not in SELDOM))


def play_all(small: WarmScene, sim: AzureSim, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        plan = FAULTS[name]
        small.run = f"run-{number}"
        persist(small, TaskKind.HYDRATE)
        plan(sim, "arm", "PUT", "*/Microsoft.Compute/disks/*")
        ended = "right"
        try:
            uploaded = persist(small, TaskKind.UPLOAD_DISKS)
            small.check_disks(uploaded.disk_paths)
            if name in IMPORTED:
                assert uploaded.evidence.startswith("imported"), name
        except StopFault as stop:
            assert stop.message and stop.remedy, name
            ended = stop.reason
        assert sim.faults.struck, name
        assert ended == ENDS.get(name, "right"), name
        nothing_odd(sim)
        sim.faults.clear()
        sim.settle()
        persist(small, TaskKind.CLEAN_UP)
        assert ours(sim) == [] and not [one for one in small.names() if "/runs/" in one or "@" in one], name


@pytest.mark.parametrize(
    ("how", "part"),
    [("lost", "comp=snapshot"), ("lost", "copy"), ("lost", "comp=page"), ("busy", "comp=metadata"), ("busy", "DELETE")],
)
def test_a_storage_account_in_trouble_is_asked_again(small: WarmScene, sim: AzureSim, part: str, how: str) -> None:
    left = [1]

    def meant(request: Any) -> bool:
        text = f"{request.method} {request.path} {'copy' if 'x-ms-copy-source' in request.headers else ''}"
        left[0] -= part in text
        return part in text and left[0] == 0

    if how == "lost":
        small.store.lose = meant
    else:
        small.store.refuse = lambda request: (503, "ServerBusy") if meant(request) else None
    hydrated = small.do(TaskKind.HYDRATE)
    uploaded = small.do(TaskKind.UPLOAD_DISKS)
    assert left[0] <= 0 and "not used" not in hydrated.evidence and uploaded.evidence.startswith("imported")
    small.check_disks(uploaded.disk_paths)
    small.do(TaskKind.CLEAN_UP)
    assert ours(sim) == [] and not [one for one in small.names() if "/runs/" in one or "@" in one]


def test_doctor_tells_whether_a_site_can_keep_replicas(warm: WarmScene, sim: AzureSim) -> None:
    def told(storage: AzureBlobAccess) -> Check:
        found = check_site(warm.site, CloudTarget(), lambda: storage)
        (line,) = [one for one in found if one.name == "WarmReplica"]
        return line

    def no_secret() -> AzureBlobAccess:
        raise WaitFault("Secret s has no key key", "Add it", reason="SecretKeyNotFound")

    storage = warm.access.storage
    good = told(storage)
    assert good.result is CheckResult.PASSED and warm.container in good.message, good
    lost = told(storage.model_copy(update={"container": "not-there"}))
    assert lost.result is CheckResult.WARNING and "not-there" in lost.message and lost.remedy, lost
    lacking = check_site(warm.site, CloudTarget(), no_secret)[-1]
    assert (lacking.name, lacking.result, lacking.remedy) == ("WarmReplica", CheckResult.WARNING, "Add it")
    cloud_module.close_clouds()  # which remember accounts for a while
    (account,) = sim.store.of("Microsoft.Storage/storageAccounts")
    account.body["location"] = "northeurope"
    elsewhere = told(storage)
    assert elsewhere.result is CheckResult.WARNING and "northeurope" in elsewhere.message, elsewhere
