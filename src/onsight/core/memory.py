"""The memory of child processes that read what strangers made."""

from __future__ import annotations


def limit_memory(most: int) -> None:
    """Let the system refuse this process more private memory than `most` bytes, where it can; a lower limit stays."""
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
