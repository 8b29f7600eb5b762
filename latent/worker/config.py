"""What a plugin that was written for Buildbot calls ``config``: ``from latent.worker import config``."""

from __future__ import annotations

from typing import NoReturn

from latent.errors import ConfigError


def error(message: str) -> NoReturn:
    """Report a mistake in a declaration, for use in checkConfig. `AbstractWorker.config_error` collects instead of raising."""
    raise ConfigError(message)
