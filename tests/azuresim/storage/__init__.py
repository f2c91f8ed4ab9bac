"""Microsoft.Storage: accounts, keys, containers; the blobs themselves are served by Azurite, which a test starts."""

from tests.azuresim.storage.accounts import Storage, plug

__all__ = ["Storage", "plug"]
