"""`farshore prepare linux|windows`: print the script that makes a machine ready for push installation."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from farshore_engine.contract.faults import StopFault

app = typer.Typer(
    name="prepare", help="Print the script that makes a machine ready for push installation.", no_args_is_help=True
)

ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@app.command("linux")
def linux(
    account: Annotated[
        str, typer.Option("--user", help="Login of the process server; not root: sudo is set up.")
    ] = "root",
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="File with its SSH public key. Without: it logs in by password.")
    ] = None,
) -> None:
    """Print a POSIX shell script to run in the machine as root; it says what it does and may be repeated."""
    print(linux_script(account, public_key.read_text(encoding="utf-8") if public_key else ""), end="")


@app.command("windows")
def windows() -> None:
    """Print a PowerShell script to run in the machine as administrator (for a vault with engine siteRecovery)."""
    print(_read("prepare-windows.ps1"), end="")


def linux_script(account: str, public_key: str) -> str:
    """Return the script for an account and its public key (empty: password logins).

    Raises:
        StopFault: the account's name or the key is none.
    """
    if not ACCOUNT.fullmatch(account):
        raise StopFault(f"{account!r} cannot be a user's name", "Use lower-case letters, digits, - and _")
    line = " ".join(public_key.split())
    if public_key and not re.match(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+ [A-Za-z0-9+/=]+( |$)", line):
        hint = (
            "Give the public one, which ends with .pub" if "PRIVATE KEY" in public_key else "Give an OpenSSH public key"
        )
        raise StopFault("this is not a public key", hint)
    text = _read("prepare-linux.sh")
    return text.replace("@ACCOUNT@", shlex.quote(account)).replace("@PUBLIC_KEY@", shlex.quote(line))


def _read(name: str) -> str:
    return (files("farshore_cli") / "scripts" / name).read_text(encoding="utf-8")
