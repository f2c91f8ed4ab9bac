"""A recovery site in Azure: what a run freezes for it, which steps it has, and what its process server is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide_world import observed, site, with_spec
from tests.unit.test_appliance_resolve import SECRETS, objects, resolve, start_task

from farshore_engine.contract.site import CloudInterface, CloudProvider
from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import FailoverRun, Site
from farshore_operator.api.failoverplan import Overrides
from farshore_operator.api.failoverrun import FailoverRunSpec, FailoverRunStatus, RunKind, RunPhase, Step, StepPhase
from farshore_operator.api.site import Provider
from farshore_operator.api.target import DiskType, Interface, Target, TargetDefaults
from farshore_operator.decide import readiness
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.runspec import Choices, Chosen, freeze
from farshore_operator.decide.runsteps import RULES, StepName, preparation, sequence, task_input
from farshore_operator.decide.runundo import account

LOGIN = {"tenantId": b"tenant", "clientId": b"client", "clientSecret": b"very-secret\n"}


def in_azure(**defaults: Any) -> Site:
    made = site("shore", "azure")
    spec = made.spec.model_copy(update={"defaults": TargetDefaults(**defaults)})
    return made.model_copy(update={"spec": spec})


def machine(recovery: Site, **target: Any) -> ObservedVM:
    seen = observed()
    vm = with_spec(seen.vm, target=Target(site_ref=seen.vm.spec.target.site_ref, **target))
    return observed(vm, target_site=recovery)


def frozen(seen: ObservedVM, kind: RunKind = RunKind.FAILOVER, overrides: Overrides | None = None) -> FailoverRunSpec:
    chosen = Chosen(seen, None, overrides or Overrides())
    owner = seen.vm  # any resource will do
    return freeze(owner, "run-1", Choices(kind=kind, recovery_point="LatestProcessed"), [chosen])


def test_a_machine_gets_its_own_wishes_else_the_plans_else_those_of_its_site() -> None:
    recovery = in_azure(
        network="shore-net", size="Standard_D2s_v5", disk_type=DiskType.PREMIUM_SSD, tags={"team": "all", "cost": "1"}
    )
    seen = machine(recovery, private_ip="10.1.0.4", tags={"team": "shop"}, availability_set="pair")
    (member,) = frozen(seen, overrides=Overrides(size="Standard_D8s_v5")).members
    assert member.provider == Provider.AZURE and member.target is not None and member.address is None
    assert member.target.model_dump(exclude_defaults=True) == {
        "size": "Standard_D8s_v5", "network": "shore-net", "private_ip": "10.1.0.4", "disk_type": "Premium_LRS",
        "availability_set": "pair", "tags": {"team": "shop", "cost": "1"},
    }  # fmt: skip


def test_a_drill_leaves_address_and_set_free_and_has_a_network_of_its_own_unless_the_site_names_one() -> None:
    seen = machine(in_azure(), private_ip="10.1.0.4", availability_set="pair")
    (member,) = frozen(seen, RunKind.TEST_FAILOVER).members
    assert member.target is not None
    assert (member.target.private_ip, member.target.availability_set, member.target.isolated) == ("", "", True)
    assert member.target.network == "drill-run-1"
    recovery = in_azure()
    named = recovery.model_copy(update={"spec": recovery.spec.model_copy(update={"drill_network": "drill-net"})})
    (member,) = frozen(machine(named), RunKind.TEST_FAILOVER).members
    assert member.target is not None and (member.target.network, member.target.isolated) == ("drill-net", False)


def test_interfaces_are_as_asked_and_free_in_a_drill() -> None:
    asked = (Interface(subnet="front"), Interface(private_ip="10.1.0.4", primary=True))
    seen = machine(in_azure(subnet="back"), interfaces=asked)
    (member,) = frozen(seen).members
    assert member.target is not None
    found = [(one.subnet, one.private_ip, one.primary) for one in member.target.nics()]
    assert found == [("front", "", False), ("back", "10.1.0.4", True)]
    (member,) = frozen(seen, RunKind.TEST_FAILOVER).members
    assert member.target is not None
    assert [one.private_ip for one in member.target.nics()] == ["", ""]
    (member,) = frozen(machine(in_azure(subnet="back"), private_ip="10.1.0.4")).members
    assert member.target is not None
    assert member.target.nics() == (CloudInterface(subnet="back", private_ip="10.1.0.4", primary=True),)


def test_site_recovery_is_not_told_of_interfaces_and_says_so() -> None:
    for target in ({"private_ip": "10.1.0.4"}, {"interfaces": (Interface(), Interface())}):
        spec = machine(in_azure(), **target).vm.spec.target
        (blocker,) = readiness._service_target(in_azure(), spec)
        assert blocker.reason == "ChosenInterfacesNotSupported"
        assert "use a RecoveryVault of engine native" in blocker.message
    assert readiness._service_target(in_azure(), machine(in_azure()).vm.spec.target) == []


def test_nothing_changes_for_a_local_site() -> None:
    spec = frozen(machine(site("shore")))
    assert "provider" not in spec.dump()["members"][0] and "target" not in spec.dump()["members"][0]
    assert StepName.UPLOAD_DISKS not in [rule.name for rule in sequence(spec, spec.members[0])]
    given = task_input(spec, "run-1", spec.members[0], RULES[StepName.START_MACHINE], point="p")
    assert given.target is None


@pytest.mark.parametrize("kind", [RunKind.TEST_FAILOVER, RunKind.FAILOVER])
def test_disks_are_uploaded_between_preparation_and_start(kind: RunKind) -> None:
    spec = frozen(machine(in_azure()), kind)
    names = [rule.name for rule in sequence(spec, spec.members[0])]
    at = names.index(StepName.UPLOAD_DISKS)
    assert (names[at - 1], names[at + 1]) == (StepName.PREPARE_GUEST, StepName.START_MACHINE)
    assert RULES[StepName.UPLOAD_DISKS].kind is TaskKind.UPLOAD_DISKS
    prepared = preparation(spec, spec.members[0])
    assert prepared.azure and prepared.network is not None and prepared.network.address == ""
    assert task_input(spec, "run-1", spec.members[0], RULES[StepName.UPLOAD_DISKS], point="p").target is not None


def test_the_machine_that_makes_way_is_named_when_the_new_one_starts() -> None:
    spec = frozen(machine(in_azure())).model_copy(update={"kind": RunKind.CHANGE_POINT, "previous_run": "run-0"})
    for name, expected in ((StepName.HYDRATE, "run-0"), (StepName.START_MACHINE, "run-0"), (StepName.PROBE, "")):
        assert task_input(spec, "run-1", spec.members[0], RULES[name], point="p").replaces == expected


def world(**azure: Any) -> list[dict[str, Any]]:
    """Return a start task of process server ps-1, which is in Azure."""
    given = {"subscription": "sub", "resourceGroup": "rg", "region": "westeurope", **azure}
    return [
        *objects(), start_task(),
        {"kind": "ProcessServer", "metadata": {"name": "ps-1"}, "spec": {"siteRef": {"name": "shore"}}},
        {"kind": "Site", "metadata": {"name": "shore"}, "spec": {"provider": "azure", "azure": given}},
    ]  # fmt: skip


def test_a_task_carries_the_cloud_of_its_process_server_with_the_login() -> None:
    found = resolve(
        world(credentialsSecretRef={"name": "azure"}, authorityHost="login.example", caBundle="PEM"),
        {**SECRETS, "azure": LOGIN},
    )
    (task,) = found.tasks
    assert task.site.provider is CloudProvider.AZURE and task.site.authority == "login.example"
    assert task.site.credential.client_secret.get_secret_value() == "very-secret"
    assert "very-secret" not in repr(task) + str(task.describe()) + repr(task.site)
    (target,) = found.recoverable
    assert target.site == task.site and target.name == "web-01" and target.target is not None


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        pytest.param(None, "names Secret azure, which does not exist", id="no Secret"),
        pytest.param({"tenantId": b"t", "clientId": b"c"}, "exactly one of clientSecret", id="neither"),
        pytest.param({**LOGIN, "clientCertificate": b"PEM"}, "exactly one of clientSecret", id="both"),
        pytest.param({"clientSecret": b"s", "clientId": b"c"}, "no key tenantId", id="no tenant"),
    ],
)
def test_a_login_that_does_not_resolve_is_named_and_waited_for(secret: dict[str, bytes] | None, said: str) -> None:
    secrets = {**SECRETS, "azure": secret} if secret is not None else SECRETS
    found = resolve(world(credentialsSecretRef={"name": "azure"}), secrets)
    (trouble,) = found.troubled
    assert said in trouble.fault.message and "Site shore spec.azure.credentialsSecretRef" in trouble.fault.message


def test_without_a_secret_the_identity_of_the_host_is_used() -> None:
    (task,) = resolve(world()).tasks
    assert task.site.credential is None


@pytest.mark.parametrize("kind", ["PrepareGuest", "ProbeMachine"])
def test_a_step_in_a_cloud_is_told_where_the_machine_answers(kind: str) -> None:
    """It was known by its name alone, and asked at port 22, where the machine's name at a Hub is another."""
    bodies = world()
    bodies[0]["spec"]["source"]["port"] = 2222
    next(one for one in bodies if one["kind"] == "Task")["spec"]["kind"] = kind
    (task,) = resolve(bodies).tasks
    assert (task.source.address, task.source.port) == ("10.0.0.4", 2222)
    local = [*objects(), *(one for one in bodies if one["kind"] == "Task")]
    assert resolve(local).tasks[0].source is None


@pytest.mark.parametrize(
    ("provider", "kind", "phase"),
    [
        pytest.param("azureStackHub", RunKind.ABORT, RunPhase.SUCCEEDED, id="a failback that was undone"),
        pytest.param("azureStackHub", RunKind.FAILBACK, RunPhase.FAILED, id="a failback that failed"),
        pytest.param(None, RunKind.ABORT, RunPhase.SUCCEEDED, id="at home is no Hub"),
    ],
)
def test_who_undoes_a_failback_is_told_what_is_left_at_the_hub(
    provider: str | None, kind: RunKind, phase: RunPhase
) -> None:
    spec = frozen(machine(in_azure()))
    member = spec.members[0].model_copy(update={"provider": provider, "target_site": "stack", "target_name": "web"})
    undoes = RunKind.FAILBACK if kind is RunKind.ABORT else None
    spec = spec.model_copy(update={"kind": kind, "members": (member,), "undoes": undoes})
    steps = (Step(name="FinalPoint", member=member.protected_vm, phase=StepPhase.SUCCEEDED),)
    status = FailoverRunStatus(phase=phase, steps=steps)
    meta = {"name": "run-1", "namespace": "shop"}
    told = account(FailoverRun.of({"metadata": meta, "spec": spec.dump(), "status": status.dump()})) or ""
    if provider is None:
        assert "taken apart" not in told
    else:
        assert "At site stack machine web is off, or taken apart" in told and "the next failback goes on" in told
