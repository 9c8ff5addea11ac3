"""Disks that are full."""

import contextlib

import pytest


@contextlib.contextmanager
def full_disk(limit):
    """Let no file grow above `limit` bytes: the operating system then refuses a write as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
