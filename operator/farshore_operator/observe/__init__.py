"""Collects what decisions are made from: typed snapshots of the cache, of Secrets and of heartbeats."""
