"""What all tests share: no example of a property test is judged by its time, since machines are busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("mmattn", deadline=None)
settings.load_profile("mmattn")
