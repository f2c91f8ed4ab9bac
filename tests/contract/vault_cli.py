"""Runs `farshore vault ...` as a process that has nothing but what a person would have: no cluster, no kubeconfig."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Terminal:
    """A shell in which the vault's options are set. `home` is empty: no kubeconfig can be found."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `farshore vault WORDS` and return how it ended."""
        self.home.mkdir(parents=True, exist_ok=True)
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.home), "COLUMNS": "250", "LANG": "C.UTF-8"}
        return subprocess.run(
            [sys.executable, "-m", "farshore_cli.main", "vault", *words],
            env=kept | self.environment | variables,
            cwd=self.home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ok(self, *words: str, **variables: str) -> str:
        """Run and return standard output; the command must succeed."""
        done = self.run(*words, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
