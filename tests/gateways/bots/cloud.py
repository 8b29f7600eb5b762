"""A latent worker whose instances are whatever a test makes of their tokens."""

from latent.worker.base import AbstractLatentWorker


class CloudWorker(AbstractLatentWorker):
    """``tokens``: of each attempt that was started, in order."""

    def reconfigService(self, *args, **kwargs):
        self.tokens = []
        self.up = 0
        return super().reconfigService(*args, **kwargs)

    def start_instance(self, build):
        self.tokens.append(self.getRandomPass())
        self.environment = self.bot_environment()
        self.up += 1

    def stop_instance(self, fast=False):
        self.up -= 1
