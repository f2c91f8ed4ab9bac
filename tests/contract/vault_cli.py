"""Runs `farshore vault ...` as a process that has nothing but what a person would have: no cluster, no kubeconfig."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Terminal:
    """A shell in which the vault's options are set. `home` is empty: no kubeconfig can be found."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `farshore vault WORDS` and return how it ended."""
        return subprocess.run(
            self._command(*words), env=self._variables(variables), cwd=self.home, input=stdin,
            capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start `farshore vault WORDS`; it is killed in the end."""
        process = subprocess.Popen(self._command(*words), env=self._variables({}), cwd=self.home)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _command(self, *words: str) -> list[str]:
        self.home.mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-m", "farshore_cli.main", "vault", *words]

    def _variables(self, more: dict[str, str]) -> dict[str, str]:
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.home), "COLUMNS": "250", "LANG": "C.UTF-8"}
        return kept | self.environment | more

    def ok(self, *words: str, **variables: str) -> str:
        """Run and return standard output; the command must succeed."""
        done = self.run(*words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
