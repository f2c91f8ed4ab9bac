"""`farshore doctor`: every check of a machine, a site, a vault or a plan, at once, changing nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from farshore_engine.contract.replication import Check

app = typer.Typer()
VERDICTS = {
    "site": ("machines can be recovered to", "machines cannot be recovered to"),
    "vault": ("machines can replicate into", "machines cannot replicate into"),
    "plan": ("all machines can fail over together by", "not all machines can fail over together by"),
}


@app.command("doctor")
def doctor(
    vm: Annotated[str, typer.Argument(help="Name of the ProtectedVM; or one of `site`, `vault`, `plan`.")] = "",
    name: Annotated[
        str, typer.Argument(help="Name of the Site, RecoveryVault or FailoverPlan, behind that word.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the process server.")] = 180.0,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
    address: Annotated[str, typer.Option(help="Check this machine from here, without a cluster.")] = "",
    port: Annotated[int, typer.Option(help="SSH port, with --address.")] = 22,
    user: Annotated[str, typer.Option(help="Login, with --address.")] = "root",
    key: Annotated[Path | None, typer.Option(help="File with the private key, with --address.")] = None,
    ask_password: Annotated[
        bool, typer.Option(help="Ask for the password, with --address; piped input works.")
    ] = False,
    data_port: Annotated[str, typer.Option(help="HOST:PORT that the machine must reach, with --address.")] = "",
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Read the subscription of a site or vault instead, and say which points hold that are only inferred. "
            "A name alone is a Site's.",
        ),
    ] = False,
) -> None:
    """Run all checks of a machine, a site in Azure (`doctor site NAME`), a vault (`doctor vault NAME`) or a plan with
    all its machines (`doctor plan NAME`), and say what to do about what fails.

    Exit code 1: there are errors; with --live: something is otherwise than we think.
    """
    from farshore_cli.doctoring import machine
    from farshore_cli.doctoring.page import show

    if live:
        _live(vm if name else "site", name or vm, namespace, output)
        return
    if name:
        if vm not in VERDICTS or address:
            words = ", ".join(f"farshore doctor {word} NAME" for word in VERDICTS)
            raise StopFault(f"{vm} {name} is nothing that can be checked", f"farshore doctor VM, or {words}")
        show(f"{vm} {name}", _subjects()[vm](name, namespace), output, VERDICTS[vm])
        return
    if bool(vm) == bool(address):
        raise StopFault("name a ProtectedVM, or give --address, not both", "`farshore status` lists the machines")
    if address:
        source = machine.source_of(address, port, user, key, ask_password)
        checks = machine.from_here(source, machine.parse_data_port(data_port))
    else:
        checks = machine.from_process_server(vm, namespace, timeout)
    show(vm or address, checks, output)


def _subjects() -> dict[str, Callable[[str, str], Sequence[Check]]]:
    from farshore_cli.doctoring.plan import plan_checks
    from farshore_cli.doctoring.vault import vault_checks
    from farshore_cli.sitedoctor import site_checks

    return {"site": site_checks, "vault": vault_checks, "plan": plan_checks}


def _live(subject: str, name: str, namespace: str, output: Format) -> None:
    from farshore_cli.live import places
    from farshore_cli.live.report import show

    readers = {"site": places.read_site, "vault": places.read_vault}
    if subject not in readers or not name:
        raise StopFault(
            "--live reads the subscription of a site or vault", "farshore doctor --live site NAME, or vault NAME"
        )
    show(f"{subject} {name}", readers[subject](name, namespace), output)
