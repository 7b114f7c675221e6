"""Folders of files for the tests of data sources."""


def make(root, *paths):
    """Create files that contain their own path, so that a test notices if the wrong one is read."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(str(path).encode())
    return root
