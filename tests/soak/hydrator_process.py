"""A hydration as a process of its own; the soak kills it, and it goes on where it was durable.

    python hydrator_process.py VAULT MACHINE POINT DIRECTORY      # VAULT is a VaultAccess in JSON, without its key

Exit code 3: the point is damaged, and says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import SecretBytes

from farshore_engine.contract.assignment import VaultAccess
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.reader import PointReader, PointSpoiled
from farshore_engine.vault.stores import open_machine


def main(vault_json: str, machine: str, point: str, directory: Path) -> int:
    access = VaultAccess.model_validate_json(vault_json).model_copy(update={"key": SecretBytes(b"k" * 32)})
    vault = open_machine(access, machine)
    reader = PointReader(vault, vault.find(point))
    try:
        for number, disk in enumerate(reader.disks):
            hydrate(reader, disk.id, directory / f"{number}.raw", threads=2)
    except PointSpoiled as fault:
        sys.stderr.write(f"{fault}\n")
        return 3
    finally:
        vault.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
