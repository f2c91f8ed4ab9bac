"""From the SDK's models to our facts. Any member may be absent: Azure leaves out what it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.contract.replication import Disk
from farshore_operator.engines.siterecovery.facts import (
    Appliance,
    Item,
    Job,
    Problem,
    ProcessServerFacts,
    Scenario,
)
from farshore_operator.engines.siterecovery.naming import last
from farshore_operator.engines.siterecovery.target import TargetWish

FABRICS = {"VMware": Scenario.CLASSIC, "InMageRcm": Scenario.MODERN}
"""Types of fabrics that physical servers replicate from, and the provider of each."""
RUNNING = ("Valid", "")
CONSISTENCY = {"ApplicationConsistent": Consistency.APP, "CrashConsistent": Consistency.CRASH}


def problems(errors: Iterable[Any] | None) -> tuple[Problem, ...]:
    """Translate health errors."""
    return tuple(
        Problem(
            code=error.error_code or "",
            message=_line(error.error_message or error.summary_message or error.error_code or "an error without text"),
            causes=_line(error.possible_causes or ""),
            remedy=_line(error.recommended_action or ""),
            severe=(error.error_level or "Error") == "Error",
        )
        for error in errors or ()
    )


def blockers(errors: Iterable[Any] | None) -> tuple[Problem, ...]:
    """Translate what Site Recovery says against a move to the modernized experience."""
    return tuple(
        Problem(
            one.error_code or "",
            _line(one.error_message or one.error_code or "an error without text"),
            _line(one.possible_causes or ""),
            _line(one.recommended_action or ""),
        )
        for one in errors or ()
    )


def appliance(fabric: Any, container: str, providers: Sequence[Any]) -> Appliance:
    """Translate a fabric of one of the two experiences."""
    properties, details = fabric.properties, fabric.properties.custom_details
    scenario = FABRICS[details.instance_type]
    classic = scenario is Scenario.CLASSIC
    servers = details.process_servers or ()
    lost = any((one.properties.connection_status or "Connected") != "Connected" for one in providers)
    dras = () if classic else details.dras or ()
    beats = [details.last_heartbeat] if classic else [dra.last_heartbeat_utc for dra in dras]
    found = [*problems(properties.health_error_details)]
    for server in servers:
        found += problems(server.health_errors)
    return Appliance(
        name=fabric.name,
        friendly=properties.friendly_name or fabric.name,
        scenario=scenario,
        container=container,
        connected=not lost,
        heartbeat=max((beat for beat in beats if beat is not None), default=None),
        version=(details.agent_version if classic else next((dra.version for dra in dras), "")) or "",
        process_servers=tuple(
            ProcessServerFacts(one.id or "", (one.friendly_name if classic else one.name) or "", one.health or "")
            for one in servers
        ),
        accounts={a.account_name or "": a.account_id or "" for a in details.run_as_accounts or ()} if classic else {},
        site_id="" if classic else details.physical_site_id or "",
        providers=tuple(one.name for one in providers),
        problems=tuple(dict.fromkeys(found)),
        identity=next((dra.id or "" for dra in dras), ""),
    )


def item(one: Any) -> Item | None:
    """Translate a replicated item, None for one of another provider."""
    properties, details = one.properties, one.properties.provider_specific_details
    if details is None or details.instance_type not in set(Scenario):
        return None
    parts = one.id.split("/")
    current = properties.current_scenario
    job = last(current.job_id or "") if current is not None else ""
    busy = bool(job) and job != "None" and (current.scenario_name or "None") != "None"
    classic = details.instance_type == Scenario.CLASSIC
    common = _classic(details) if classic else _modern(details)
    return Item(
        id=one.id,
        name=one.name,
        fabric=_after(parts, "replicationFabrics"),
        container=_after(parts, "replicationProtectionContainers"),
        friendly=properties.friendly_name or one.name,
        scenario=details.instance_type,
        state=properties.protection_state or "",
        state_text=properties.protection_state_description or "",
        location=properties.active_location or "",
        drill=properties.test_failover_state or "",
        allowed=frozenset(properties.allowed_operations or ()),
        health=properties.replication_health or "",
        policy=last(properties.policy_id or ""),
        job=job if busy else "",
        doing=(current.scenario_name or "") if busy else "",
        problems=problems(properties.health_errors),
        failover_point=last(properties.failover_recovery_point_id or ""),
        last_drill=properties.last_successful_test_failover_time,
        last_failover=properties.last_successful_failover_time,
        protectable=last(properties.protectable_item_id or ""),
        **common,
    )


def _classic(details: Any) -> dict[str, Any]:
    nic = next(iter(details.vm_nics or ()), None)
    config = next(iter(nic.ip_configs or ()), None) if nic is not None else None
    resync = any((disk.resync_required or "No") == "Yes" for disk in details.protected_disks or ())
    moved = details.switch_provider_details
    return {
        "address": details.ip_address or "",
        "percent": details.resync_progress_percentage,
        "resync": resync,
        "agent_version": details.agent_version or "",
        "heartbeat": details.last_heartbeat,
        "disks": tuple(
            Disk(id=disk.disk_id or "", name=disk.disk_name or "", size_bytes=disk.disk_capacity_in_bytes or 0)
            for disk in details.protected_disks or ()
        ),
        "target_name": details.recovery_azure_vm_name or "",
        "target_address": (config.recovery_static_ip_address or "") if config is not None else "",
        "switched_to": (moved.target_resource_id or "") if moved is not None else "",
        "blockers": blockers(details.switch_provider_blocking_error_details),
        "windows": (details.os_type or "").upper() == "WINDOWS",
        "target": TargetWish(
            details.recovery_azure_resource_group_id or "",
            details.selected_recovery_azure_network_id or "",
            (config.recovery_subnet_name or "") if config is not None else "",
            details.recovery_azure_vm_name or "",
            details.recovery_azure_vm_size or "",
            next((one.replica_disk_type or "" for one in details.protected_managed_disks or ()), ""),
            details.recovery_availability_set_id or "",
            details.target_availability_zone or "",
            tuple(sorted((details.target_vm_tags or {}).items())),
        ),
    }


def _modern(details: Any) -> dict[str, Any]:
    nic = next(iter(details.vm_nics or ()), None)
    agent = details.mobility_agent_details
    resync = (details.resync_required or "false").lower() == "true"
    return {
        "address": details.primary_nic_ip_address or "",
        "percent": details.resync_progress_percentage if resync else details.initial_replication_progress_percentage,
        "resync": resync,
        "agent_version": (agent.version or "") if agent is not None else "",
        "heartbeat": agent.last_heartbeat_utc if agent is not None else None,
        "disks": tuple(
            Disk(id=disk.disk_id or "", name=disk.disk_name or "", size_bytes=disk.capacity_in_bytes or 0)
            for disk in details.protected_disks or ()
        ),
        "target_name": details.target_vm_name or "",
        "target_address": (nic.target_ip_address or "") if nic is not None else "",
        "switched_to": "",
        "windows": (details.os_type or "").upper() == "WINDOWS",
        "target": TargetWish(
            details.target_resource_group_id or "",
            details.target_network_id or "",
            (nic.target_subnet_name or "") if nic is not None else "",
            details.target_vm_name or "",
            details.target_vm_size or "",
            next((str(one.disk_type or "") for one in details.protected_disks or ()), ""),
            details.target_availability_set_id or "",
            details.target_availability_zone or "",
            tuple(sorted((one.tag_name, one.tag_value) for one in details.target_vm_tags or ())),
        ),
    }


def job(one: Any) -> Job:
    """Translate a job, with the errors of its own and of its tasks."""
    properties = one.properties
    tasks = properties.tasks or ()
    errors = [*(properties.errors or ()), *(error for task in tasks for error in task.errors or ())]
    done = sum((task.state or "") in ("Succeeded", "Failed", "Skipped") for task in tasks)
    return Job(
        id=one.name,
        scenario=properties.scenario_name or "",
        state=properties.state or "",
        text=properties.state_description or "",
        problems=tuple(dict.fromkeys(_of_job(error) for error in errors)),
        percent=100 * done // len(tasks) if tasks else None,
        failed_tasks=tuple(task.name or "" for task in tasks if task.state == "Failed"),
        started=properties.start_time,
        allowed=frozenset(properties.allowed_actions or ()),
    )


def _of_job(error: Any) -> Problem:
    service, provider = error.service_error_details, error.provider_error_details
    severe = (error.error_level or "Error") == "Error"
    if service is not None:
        code, message = service.code or "", service.message
        causes, remedy = service.possible_causes, service.recommended_action
    elif provider is not None:
        code, message = str(provider.error_code or ""), provider.error_message
        causes, remedy = provider.possible_causes, provider.recommended_action
    else:
        code, message, causes, remedy = "", "an error without text", "", ""
    return Problem(code, _line(message or code), _line(causes or ""), _line(remedy or ""), severe)


def point(one: Any, *, epoch: int, writer: str, disk_bytes: int) -> RecoveryPoint:
    """Translate a recovery point. Its slot is the second in which it was taken: Site Recovery numbers none."""
    properties = one.properties
    at = properties.recovery_point_time or datetime.fromtimestamp(0, UTC)
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return RecoveryPoint(
        name=one.name,
        slot=int(at.timestamp()),
        time=at,
        consistency=CONSISTENCY.get(properties.recovery_point_type or "", Consistency.UNMARKED),
        disk_bytes=disk_bytes,
        epoch=epoch,
        writer=writer,
    )


def _after(parts: list[str], word: str) -> str:
    lowered = [part.lower() for part in parts]
    return parts[lowered.index(word.lower()) + 1] if word.lower() in lowered else ""


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def policy_minutes(one: Any) -> tuple[int, int]:
    """Return for how many minutes a policy keeps points, and how often it makes application-consistent ones."""
    details = one.properties.provider_specific_details
    modern = details is not None and details.instance_type == Scenario.MODERN
    keep = getattr(details, "recovery_point_history_in_minutes" if modern else "recovery_point_history", None)
    return keep or 0, getattr(details, "app_consistent_frequency_in_minutes", None) or 0
