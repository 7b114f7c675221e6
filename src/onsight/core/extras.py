"""What only the extra `train` brings: `onsight` without it answers, evaluates, compares, reports and exports."""

from __future__ import annotations

from importlib.util import find_spec

from onsight.core.errors import SpecError

PACKAGES = {"matplotlib": "Matplotlib", "scipy": "SciPy", "sklearn": "scikit-learn"}  # as imported -> as written


def missing(package: str) -> str:
    """Return that one of `PACKAGES` is not installed, and how to install it; an empty string if it is."""
    return "" if find_spec(package) else sentence(package)


def sentence(package: str) -> str:
    """Return what to say where one of `PACKAGES` is missing."""
    return f"{PACKAGES[package]} is not installed. Install it: pip install 'onsight[train]'"


def require(package: str, purpose: str) -> None:
    """Raise SpecError unless one of `PACKAGES`, which `purpose` needs, is installed."""
    if said := missing(package):
        raise SpecError(f"{purpose} needs {PACKAGES[package]}. {said}")
