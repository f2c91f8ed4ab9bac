"""A process that puts objects into a directory is killed with -9 at random moments: nothing torn is ever visible."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farshore_engine.vault.directory_store import DirectoryStore

WRITER = """
import hashlib, os, sys
from pathlib import Path
from farshore_engine.vault.directory_store import DirectoryStore
store, turn = DirectoryStore(Path(sys.argv[1])), int(sys.argv[2])
for number in range(1 << 30):
    data = os.urandom(1 << 20 if number % 3 else 5000)
    name = f"packs/{turn}-{number:06d}-{hashlib.sha256(data).hexdigest()}"
    store.put(name, data, create_only=True)
    print(name, flush=True)
    head = os.urandom(3000)
    store.put("head", head + hashlib.sha256(head).digest())
"""


@pytest.mark.parametrize("seed", range(2))
def test_what_is_visible_is_whole_and_what_was_acknowledged_is_there(tmp_path: Path, seed: int) -> None:
    store, chance = DirectoryStore(tmp_path), random.Random(seed)
    for turn in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        try:
            acknowledged = [writer.stdout.readline().strip()]
            time.sleep(chance.random() * 0.3)
        finally:
            writer.kill()
            rest = writer.communicate()[0]
        acknowledged += [line for line in rest.splitlines() if len(line) == len(acknowledged[0])]
        there = list(store.list("packs/"))
        assert set(acknowledged) <= set(there)
        for name in there:
            assert hashlib.sha256(store.get(name)[0]).hexdigest() == name.rpartition("-")[2]
        if "head" in store.list(""):
            head = store.get("head")[0]
            assert hashlib.sha256(head[:-32]).digest() == head[-32:]
