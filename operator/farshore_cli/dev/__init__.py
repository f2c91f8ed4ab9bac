"""The development environment: a real Kubernetes control plane and an Azure Blob emulator on this machine.

The CLI (`farshore dev`), the tests and the demo all start it through this package, so that none has a cluster of its
own making. It needs Linux and a checkout of the repository, and no container engine.
"""
