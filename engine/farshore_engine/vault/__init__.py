"""The vault: recovery points as encrypted objects in a store, with one fenced writer and any reader who has the key.

`docs/vault-format.md` describes the objects. Entry points: `stores.open_store`, `machine.MachineVault`,
`writer.PointWriter`, `reader.PointReader`, `prune.prune`.
"""
