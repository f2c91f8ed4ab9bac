"""The 64 KiB grid of a disk and pure operations on it. The agent carries this too: only numpy and blake3 are used."""
