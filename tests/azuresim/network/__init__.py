"""Microsoft.Network: virtual networks, subnets, interfaces, public addresses, security groups."""

from tests.azuresim.network.routes import plug

__all__ = ["plug"]
