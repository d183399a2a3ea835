"""Optional packages: checked before use, with the exact command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from uprank.errors import MissingDependencyError

__all__ = ["installed", "require"]


def require(feature: str, extra: str, *packages: str) -> None:
    """Check that ``packages`` are there, without importing them.

    Args:
        feature: What needs them, for the message.
        extra: The extra of uprank that brings them.
        packages: Import names; of a dotted one the parent package is imported.

    Raises:
        MissingDependencyError: If any of them is not installed.
    """
    missing = tuple(package for package in packages if not installed(package))
    if missing:
        raise MissingDependencyError(feature, extra, missing)


def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it; of a dotted one the parent package is."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # no parent package, or a module that is blocked on purpose
        return False
