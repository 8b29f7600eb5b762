"""A controller for machines that exist only while there is work."""

__version__ = "0.1.0"
