"""latent finds the plugin, once it is installed."""

from latent_template import TemplateLatentWorker

from latent.plugins import worker


def test_found_by_its_entry_point() -> None:
    """A master.cfg has it under its name."""
    assert worker.TemplateLatentWorker is TemplateLatentWorker
