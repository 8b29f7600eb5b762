"""A latent worker that can be declared; nobody starts it here."""

from __future__ import annotations

from typing import Any

from latent.worker.base import AbstractLatentWorker


class Cloud(AbstractLatentWorker):
    def start_instance(self, build: Any) -> None:
        """Nothing starts."""

    def stop_instance(self, fast: bool = False) -> None:
        """Nothing stops."""
