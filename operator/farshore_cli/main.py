"""The entry point of `farshore`: collects the commands and turns faults into messages a person can act on."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from importlib import metadata
from typing import Annotated

import typer

from farshore_cli import commands
from farshore_engine.contract.faults import Fault


def build() -> typer.Typer:
    """Return the application with every command of `farshore_cli.commands`."""
    app = typer.Typer(
        name="farshore",
        help="Disaster recovery for virtual machines, declared in Git.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def farshore(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        """Disaster recovery for virtual machines, declared in Git."""

    for found in sorted(pkgutil.iter_modules(commands.__path__), key=lambda module: module.name):
        app.add_typer(importlib.import_module(f"{commands.__name__}.{found.name}").app)
    return app


def _version(asked: bool) -> None:
    if asked:
        print(f"farshore {metadata.version('farshore')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a fault ends with exit code 1, its message and its remedy."""
    try:
        build()()
    except Fault as fault:
        print(f"error: {fault.message}", file=sys.stderr)
        if fault.remedy:
            print(f"  what to do: {fault.remedy}", file=sys.stderr)
        raise SystemExit(1) from fault


if __name__ == "__main__":
    main()
