"""`make demo`: plays the scenario with live progress, prints a summary, writes `build/demo.json`."""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console
from rich.status import Status
from tests.demo.circle import Circle
from tests.demo.kube import DemoFailed
from tests.demo.stage import Stage
from tests.demo.summary import Summary

from farshore_cli.dev.checkout import checkout
from farshore_cli.dev.environment import default_directory
from farshore_engine.contract.faults import Fault


def main() -> int:
    """Play the demo once."""
    parser = argparse.ArgumentParser(
        description="Protect, drill, move to another site and bring home two real machines."
    )
    parser.add_argument("--keep", action="store_true", help="leave everything up")
    keep = parser.parse_args().keep
    console = Console(highlight=False)
    if os.geteuid() != 0:
        console.print("[red]The demo makes network namespaces and loop devices: run it as root.[/]")
        return 2
    summary = Summary()
    with console.status("starting") as status:
        stage = Stage(default_directory(), lambda line: _live(status, line))
        if stage.environment.exists:
            console.print("removing what an earlier run left")
            stage.down()
        scenario = Circle(stage, summary, lambda line: _live(status, line), console.print)
        try:
            scenario.play()
        except (DemoFailed, Fault, OSError, KeyError) as error:
            summary.error = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
            console.print(stage.logs(), markup=False)
        finally:
            scenario.close()
            summary.write(checkout() / "build" / "demo.json")
            if keep:
                console.print(f"Everything is left up.\n  export KUBECONFIG={stage.environment.kubeconfig}")
                console.print(f"  export PATH={stage.environment.bin}:$PATH\n  make dev-down removes it")
            else:
                stage.down()
    summary.show(console)
    return 0 if summary.ok else 1


def _live(status: Status, line: str) -> None:
    """Show a line until the next one replaces it."""
    status.update(line[:150])


if __name__ == "__main__":
    sys.exit(main())
