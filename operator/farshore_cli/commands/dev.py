"""`farshore dev`: start, show and remove a development environment on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from farshore_cli.dev.environment import Environment

app = typer.Typer(
    name="dev", help="A Kubernetes control plane and an Azure Blob emulator on this machine.", no_args_is_help=True
)

_Directory = Annotated[
    Path | None, typer.Option("--dir", help="Where it lives. Default: build/dev in the repository.", show_default=False)
]


@app.command()
def up(directory: _Directory = None) -> None:
    """Start the environment, or what of it does not run. It stays until `farshore dev down`."""
    environment = _environment(directory)
    environment.up()
    _show(environment)
    _show_next(environment)


@app.command()
def status(directory: _Directory = None) -> None:
    """Show what runs. Exit code 0: all of it, 1: not all."""
    environment = _environment(directory)
    if not environment.exists:
        typer.echo(f"Nothing runs in {environment.directory}. Start it with: farshore dev up")
    else:
        _show(environment)
    if not environment.alive:
        for part in environment.parts():
            if not part.process.alive:
                typer.echo(f"\n{part.process.name} ended; {part.log} says why. Start it again with: farshore dev up")
        raise typer.Exit(1)
    _show_next(environment)


@app.command()
def down(directory: _Directory = None) -> None:
    """Stop the environment and remove its data, with what the demo left up in it."""
    environment = _environment(directory)
    existed = environment.exists
    environment.down()
    typer.echo(f"{'Removed what was' if existed else 'Nothing runs'} in {environment.directory}.")


@app.command()
def fetch() -> None:
    """Build and fetch every tool that the environment runs, ahead of time."""
    from farshore_cli.dev import tools

    for tool in (tools.kubectl, tools.helm, tools.azurite, tools.devcluster):
        tool(_say)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _environment(directory: Path | None) -> Environment:
    from farshore_cli.dev.environment import Environment, default_directory

    return Environment(directory or default_directory(), progress=_say)


def _show(environment: Environment) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("Program", "State", "Process", "Address", box=None, header_style="bold")
    for part in environment.parts():
        state = "[green]running[/]" if part.process.alive else "[red]dead[/]"
        table.add_row(part.process.name, state, str(part.process.pid), part.url)
    Console().print(table)


def _show_next(environment: Environment) -> None:
    from farshore_cli.dev.azurite import ACCOUNT

    typer.echo(
        f"""
Use it:
  export KUBECONFIG={environment.kubeconfig} PATH={environment.bin}:$PATH
  helm install farshore charts/farshore --namespace farshore-system --create-namespace
  farshore operator --health-port 0     # there is no kubelet, so the chart's own pod stays Pending
  kubectl apply -f ...                  # what is in manifests/samples, with your addresses and secrets

Azure Blob: {environment.azurite.account_url} (account {ACCOUNT}, the emulators' well-known key)
Remove it:  farshore dev down{_option(environment)}"""
    )


def _option(environment: Environment) -> str:
    """Give the option that names this environment, if it is not the default one."""
    from farshore_cli.dev.environment import default_directory

    return "" if environment.directory == default_directory() else f" --dir {environment.directory}"
