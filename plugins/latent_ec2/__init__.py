"""Instances that are Amazon EC2's: `EC2LatentWorker`, for `latent.plugins.worker`."""
