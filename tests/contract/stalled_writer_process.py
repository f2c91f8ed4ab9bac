"""A writer that stops itself with SIGSTOP between its last check and the put of its second point.

    python stalled_writer_process.py STORE      # STORE: a DirectoryAccess or AzureBlobAccess in JSON, with its secret

It says `put` before it stops, and what became of the put once it is continued: `committed`, or the fault's name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from tests.contract.faulty_store import WrappedStore
from tests.unit.vault.rig import Rig

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess
from farshore_engine.contract.faults import Fault
from farshore_engine.vault.stores import open_store


class StoppingStore(WrappedStore):
    armed = False

    def before(self, operation: str, name: str) -> None:
        if self.armed and operation == "put" and "/chain/0" in name:
            self.armed = False
            sys.stdout.write("put\n")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGSTOP)


def main(text: str) -> None:
    document: dict[str, Any] = json.loads(text)
    access = (
        DirectoryAccess.model_validate(document) if "path" in document else AzureBlobAccess.model_validate(document)
    )
    store = StoppingStore(open_store(access))
    rig = Rig(store, writer_name="ps-1", epoch=1)
    rig.point("sda", {1: 1})
    rig.write("sda", {2: 2})
    store.armed = True
    try:
        rig.commit()
        outcome = "committed"
    except Fault as fault:
        outcome = type(fault).__name__
    sys.stdout.write(f"{outcome}\n")


if __name__ == "__main__":
    main(sys.argv[1])
