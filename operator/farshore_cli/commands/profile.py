"""`farshore profile`: measure how fast a machine changes, and size link, spool, storage and cost."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from rich.console import Group

    from farshore_cli.sizing import Assumptions, Prices, Sample, Sizing
    from farshore_engine.contract.assignment import Retention

app = typer.Typer()

GIB, MIB = 1 << 30, 1 << 20


class Engine(StrEnum):
    """What protects a machine, as in RecoveryVault; here, so that the command line starts without the API's models."""

    NATIVE = "native"
    SITE_RECOVERY = "siteRecovery"


@app.command("profile")
def profile(
    vm: Annotated[str, typer.Argument(help="Name of the ProtectedVM; or give --address.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    period: Annotated[str, typer.Option(help="How far to look back, or, with --address, how long to look.")] = "",
    address: Annotated[str, typer.Option(help="Measure this machine over SSH, without an agent.")] = "",
    port: Annotated[int, typer.Option(help="SSH port, with --address.")] = 22,
    user: Annotated[str, typer.Option(help="Login, with --address.")] = "root",
    key: Annotated[Path | None, typer.Option(help="File with the private key, with --address.")] = None,
    ask_password: Annotated[bool, typer.Option(help="Ask for the password, with --address.")] = False,
    every: Annotated[str, typer.Option(help="Time between two looks, with --address.")] = "10s",
    interval: Annotated[str, typer.Option(help="Time between points. Default: as it is, or 5m.")] = "",
    keep_all: Annotated[str, typer.Option(help="How long every point is kept. Default: the policy's, or 24h.")] = "",
    outage: Annotated[str, typer.Option(help="How long the vault may be away until the spool is full.")] = "4h",
    first_copy: Annotated[str, typer.Option(help="How long the first copy may take.")] = "24h",
    ratio: Annotated[float, typer.Option(min=0, help="Bytes stored for a byte changed. 0: as measured, or 1.")] = 0.0,
    link: Annotated[str, typer.Option(help="Bytes a second that the link carries, such as 12Mi.")] = "",
    price_stored: Annotated[float | None, typer.Option(min=0, help="Price of a GiB stored for a month.")] = None,
    price_sent: Annotated[float | None, typer.Option(min=0, help="Price of a GiB sent.")] = None,
    price_machine: Annotated[
        float | None, typer.Option(min=0, help="Price of a machine that Site Recovery protects for a month.")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="What is to protect the machine of --address; a ProtectedVM's vault says it.")
    ] = Engine.NATIVE,
    currency: Annotated[str, typer.Option(help="Currency of the prices.")] = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
) -> None:
    """Size what a machine's protection takes, from its points in the vault or from its kernel's counters.

    Site Recovery does not tell how fast its machines change: they are measured over SSH, with --user and --key.
    """
    from rich.console import Console

    from farshore_cli.serviceprofile import find, not_told, service_page
    from farshore_cli.servicesizing import service_size
    from farshore_cli.sizing import Assumptions, Prices, size

    if bool(vm) == bool(address):
        raise StopFault("name a ProtectedVM, or give --address, not both", "`farshore status` lists the machines")
    service = find(vm, namespace) if vm else None
    if service is not None:
        address, port, engine = service.address, service.port, Engine.SITE_RECOVERY
        if key is None and not ask_password:
            raise not_told(vm, service)
    if address:
        watched = (_duration(period or "10m", "--period"), _duration(every, "--every"))
        samples, disks = _watch((address, port, user, key, ask_password), *watched)
        usual, kept = None, service.retention if service is not None else None
    else:
        samples, disks, usual, kept = _from_vault(vm, namespace, _duration(period or "7d", "--period"))
    given = Assumptions(
        interval=_duration(interval, "--interval") if interval else usual or timedelta(minutes=5),
        retention=_retention(keep_all, kept),
        ratio=ratio or None,
        outage=_duration(outage, "--outage"),
        first_copy=_duration(first_copy, "--first-copy"),
        link=_amount(link, "--link") if link else None,
        prices=Prices(price_stored, price_sent, currency),
    )
    found, by_service = size(samples, disks, given), None
    if engine is Engine.SITE_RECOVERY:
        by_service = service_size(found, disks, given.retention.keep_all, price_machine, price_stored)
    if output is Format.JSON:
        told = as_json(vm or address, disks, found, given)
        if by_service is not None:
            told["siteRecovery"] = {_camel(name): value for name, value in asdict(by_service).items()}
        print(json.dumps(told, indent=2))
    else:
        show = Console(highlight=False).print
        show(page(vm or address, disks, found, given, own=by_service is None))
        if by_service is not None:
            show(service_page(by_service, given, service))


def as_json(name: str, disks: int, found: Sizing, given: Assumptions) -> dict[str, object]:
    """Return the answer and its assumptions for programs: seconds and bytes."""
    assumed = {
        "intervalSeconds": given.interval.total_seconds(),
        "keepAllSeconds": given.retention.keep_all.total_seconds(),
        "hourly": given.retention.hourly,
        "daily": given.retention.daily,
        "weekly": given.retention.weekly,
        "outageSeconds": given.outage.total_seconds(),
        "firstCopySeconds": given.first_copy.total_seconds(),
        "headroom": given.headroom,
        "link": given.link,
        "priceGibMonth": given.prices.gib_month,
        "priceGibSent": given.prices.gib_sent,
        "currency": given.prices.currency,
    }
    answer = {_camel(name): value for name, value in asdict(found).items()}
    return {"machine": name, "diskBytes": disks, **answer, "assumptions": assumed}


def page(name: str, disks: int, found: Sizing, given: Assumptions, *, own: bool = True) -> Group:
    """Return the answer for people: what is needed, from what, under which assumptions; `own` by our own engine."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("WHAT", "SIZE", "FROM", box=None)
    hours = found.measured_seconds / 3600
    table.add_row("changes", f"{_rate(found.average)}, busiest {_rate(found.busiest)}", f"{hours:.1f} h measured")
    told = f"ratio {found.ratio:.2f}, headroom {given.headroom:g}"
    table.add_row("link, all the time", _rate(found.link_average), told)
    table.add_row("link, busiest", _rate(found.link_busiest), f"a point every {given.interval}, {told}")
    table.add_row("link, first copy", _rate(found.link_first), f"{disks / GIB:.1f} GiB in {given.first_copy}")
    if given.link:
        rpo = f"{found.rpo_seconds:.0f} s" if found.rpo_seconds is not None else "grows without end"
        table.add_row("age of the newest point", rpo, f"at the busiest time, link {_rate(given.link)}")
        table.add_row("first copy takes", f"{timedelta(seconds=round(found.first_seconds or 0))}", "with this link")
    if own:
        table.add_row("spool", _size(found.spool), f"the vault away for {given.outage} at the busiest time")
        table.add_row("vault", f"at most {_size(found.storage)}", _kept(found, given.retention))
    table.add_row("sent in 30 days", _size(found.monthly_sent), "all changes at their average")
    if found.cost_month is not None and own:
        table.add_row(
            "cost of 30 days", f"{found.cost_month:.2f} {given.prices.currency}".strip(), _prices(given.prices)
        )
    return Group(Text(name, style="bold"), table, *(Text(note, style="yellow") for note in found.notes))


def _kept(found: Sizing, retention: Retention) -> str:
    tiers = ", ".join(
        f"{count} {tier}"
        for tier, count in (("hourly", retention.hourly), ("daily", retention.daily), ("weekly", retention.weekly))
        if count
    )
    return (
        f"{_size(found.storage_first)} first copy, every point of {retention.keep_all}{', ' + tiers if tiers else ''}"
    )


def _prices(prices: Prices) -> str:
    stored = f"{prices.gib_month:g} a GiB stored" if prices.gib_month is not None else "storage not priced"
    sent = f"{prices.gib_sent:g} a GiB sent" if prices.gib_sent is not None else "sending not priced"
    return f"{stored}, {sent}"


def _watch(
    machine: tuple[str, int, str, Path | None, bool], period: timedelta, every: timedelta
) -> tuple[list[Sample], int]:
    from farshore_cli.churn import from_machine
    from farshore_cli.doctoring.machine import source_of

    return from_machine(source_of(*machine), period, every, lambda line: print(line, file=sys.stderr))


def _from_vault(
    vm: str, namespace: str, period: timedelta
) -> tuple[list[Sample], int, timedelta | None, Retention | None]:
    from farshore_cli.churn import from_points, spacing
    from farshore_cli.commands.points import read_points
    from farshore_cli.status import utc_now

    points, _, rules = read_points(vm, namespace, explain=True)
    samples = from_points(points, period, utc_now())
    if not samples:
        raise StopFault(
            f"{vm} has no two neighbouring recovery points within {period}, so that nothing is known of its changes",
            "Wait for points, give a longer --period, or measure it with --address",
            reason="NotMeasured",
        )
    return samples, max(point.disk_bytes for point in points), spacing(points), rules


def _retention(keep_all: str, known: Retention | None) -> Retention:
    from farshore_engine.contract.assignment import Retention

    found = known or Retention()
    return found.model_copy(update={"keep_all": _duration(keep_all, "--keep-all")}) if keep_all else found


def _duration(text: str, option: str) -> timedelta:
    from farshore_operator.api.values import parse_duration

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise StopFault(f"{option}: {error}", "Write it such as 30s, 15m or 7d") from error
    assert isinstance(found, timedelta), "of a string"
    return found


def _amount(text: str, option: str) -> int:
    from farshore_operator.api.values import parse_quantity

    try:
        return int(str(parse_quantity(text)))
    except ValueError as error:
        raise StopFault(f"{option}: {error}", "Write it such as 12Mi") from error


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / MIB:.2f} MiB/s"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
