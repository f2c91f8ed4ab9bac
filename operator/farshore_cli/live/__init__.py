"""`farshore doctor --live`: reads a real subscription, and says which inferred points of docs/azure-unverified.md hold.

Nothing but GET, HEAD and lists is sent. `items` is the list, the same as the docs'; one module for each place has the
probes; `report` runs and prints them.
"""
