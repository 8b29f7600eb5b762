"""Instances that are Amazon EC2's: `EC2LatentWorker`, for `latent.plugins.worker`."""

from latent_ec2.worker import EC2LatentWorker

__all__ = ["EC2LatentWorker"]
