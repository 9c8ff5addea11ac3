"""What tests of models share."""

import pytest

from recalign.models import prepacked


@pytest.fixture
def made(monkeypatch):
    """The weights of the layouts that are made."""
    prepacked._available()  # tries one product, once
    found = []

    class Noted(prepacked.LaidOut):
        def __init__(self, weight):
            found.append(weight)
            super().__init__(weight)

    monkeypatch.setattr(prepacked, "LaidOut", Noted)
    return found
