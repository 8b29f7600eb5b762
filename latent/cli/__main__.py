"""``python -m latent.cli``: the command ``latent``."""

from latent.cli.main import main

main()
