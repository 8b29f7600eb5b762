"""A controller with workers of all plugins, on whom everything falls that can: see `benchmarks.chaos.__main__`."""
