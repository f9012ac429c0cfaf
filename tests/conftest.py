"""Settings that hold for every test."""

from hypothesis import settings

# Tests do not time: a busy machine is no failure.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")
