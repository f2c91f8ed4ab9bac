"""How fast a copy is and when it will be done, from the agent's own counts."""

from __future__ import annotations

from collections import deque

from farshore_engine.contract.replication import TransferProgress

WINDOW = 15.0  # seconds over which the rate is averaged


class ProgressMeter:
    """Turns (time, bytes done) samples into a report. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._total = 0

    def note(self, now: float, total: int, done: int) -> None:
        """Take in a sample; a count that falls means that a new pass began."""
        if self._samples and (done < self._samples[-1][1] or total != self._total):
            self._samples.clear()
        self._total = total
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW:
            self._samples.popleft()

    def report(self) -> TransferProgress | None:
        """Return the progress, None before the first sample."""
        if not self._samples:
            return None
        (first_time, first_done), (last_time, done) = self._samples[0], self._samples[-1]
        elapsed = last_time - first_time
        rate = int((done - first_done) / elapsed) if elapsed > 0 else 0
        left = max(0, self._total - done)
        eta = 0 if left == 0 else round(left / rate) if rate > 0 else None
        percent = 100 if self._total == 0 else min(100, done * 100 // self._total)
        return TransferProgress(bytes_total=self._total, bytes_done=done, percent=percent, rate=rate, eta_seconds=eta)


def pace(meter: ProgressMeter) -> str:
    """Say how much is written, how fast, and how long the rest takes."""
    found = meter.report()
    assert found is not None, "a sample was noted just before"
    words = f"{found.bytes_done / 2**30:.1f} of {found.bytes_total / 2**30:.1f} GiB"
    if found.rate:
        words += f", {found.rate / 2**20:.0f} MiB/s"
    return words if found.eta_seconds is None else f"{words}, {found.eta_seconds} s left"
