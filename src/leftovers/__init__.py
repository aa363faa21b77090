"""The uninstall hooks that container products never had."""

__version__ = "0.1.0"
