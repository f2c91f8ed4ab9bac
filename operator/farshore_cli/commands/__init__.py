"""One module for each command or group of commands; each has a typer application named `app`.

A group names itself (`typer.Typer(name="dev")`); an application without a name adds its commands to the top level.
Modules import what is heavy (kubernetes, azure, rich tables) inside their functions, so that `--help` stays quick.
"""
