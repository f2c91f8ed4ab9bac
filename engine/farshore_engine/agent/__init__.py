"""The mobility agent: runs in the protected machine, tracks writes, makes consistent points, sends what changed.

Everything here runs from a self-contained bundle: standard library, numpy and blake3 only.
"""

VERSION = "0.1.0"
