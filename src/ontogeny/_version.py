"""The version number, importable without the package."""

__version__ = "0.1.0"
