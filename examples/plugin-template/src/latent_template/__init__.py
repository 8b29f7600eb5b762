"""A plugin for latent: machines of a shop, rented by the minute."""

from latent_template.worker import TemplateLatentWorker

__all__ = ["TemplateLatentWorker"]
