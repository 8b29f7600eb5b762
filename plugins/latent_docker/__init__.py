"""Instances that are Docker containers: `DockerLatentWorker`, for `latent.plugins.worker`."""

from latent_docker.worker import DockerLatentWorker

__all__ = ["DockerLatentWorker"]
