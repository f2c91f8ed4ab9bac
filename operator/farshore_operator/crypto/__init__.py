"""Certificates and sealed tokens: computation on keys, without any effect."""
