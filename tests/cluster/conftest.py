"""Fixtures that several modules of this suite share."""

from tests.cluster.moving_scene import moving_world, scene

__all__ = ["moving_world", "scene"]
