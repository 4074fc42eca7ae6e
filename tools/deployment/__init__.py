"""The whole product on one machine, for demo, measurements and acceptance tests."""

from __future__ import annotations

from tools.deployment.apps import App, CacheApp, DatabaseApp, ObjectStoreApp, VolumeApp
from tools.deployment.calls import ClientFiles, agent_channel, controller_channel
from tools.deployment.deployment import Deployment, Site, write_demo_file
from tools.deployment.programs import DeploymentError, Program

__all__ = [
    "App",
    "CacheApp",
    "ClientFiles",
    "DatabaseApp",
    "Deployment",
    "DeploymentError",
    "ObjectStoreApp",
    "Program",
    "Site",
    "VolumeApp",
    "agent_channel",
    "controller_channel",
    "write_demo_file",
]
