"""`farshore import`: manifests for what others protect already."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="import", help="Manifests for machines that are protected already.", no_args_is_help=True)


@app.callback()
def _import() -> None:
    """Manifests for machines that are protected already."""


@app.command("site-recovery")
def site_recovery(
    vault: Annotated[str, typer.Argument(help="Name of the RecoveryVault of engine siteRecovery.")],
    source_site: Annotated[str, typer.Option(help="Site at which the machines run.")],
    target_site: Annotated[str, typer.Option(help="Site of provider azure where they are recovered.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory for the files. Default: stdout.")] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
) -> None:
    """Write a ProtectedVM for each machine that Azure Site Recovery protects, as it is: applying them changes nothing.

    Nothing is written to the cluster or to Azure: review the files and commit them.
    """
    import yaml

    from farshore_cli.adoption import adopted
    from farshore_operator.engines.siterecovery.adopt import Place
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment

    place = Place(namespace or current_namespace(), vault, source_site, target_site)
    found = adopted(Client(from_environment(), "farshore-cli"), place)
    for file, manifest in found.manifests.items():
        text = yaml.safe_dump(manifest, sort_keys=False)
        if out is None:
            print(f"---\n{text}", end="")
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / file).write_text(text)
            print(out / file)
    for name, why in found.left_out:
        print(f"left out: {name}: {why}", file=sys.stderr)
