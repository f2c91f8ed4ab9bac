"""How a field of a model is called in YAML: camelCase, with the acronyms that Kubernetes users expect in capitals."""

from __future__ import annotations

_ACRONYMS = {"ip": "IP", "url": "URL", "vm": "VM"}


def camel(name: str) -> str:
    """Return the YAML name of a field: `protected_vm_ref` becomes `protectedVMRef`, `private_ip` becomes
    `privateIP`."""
    first, *rest = name.split("_")
    return first + "".join(_ACRONYMS.get(word, word[:1].upper() + word[1:]) for word in rest)
