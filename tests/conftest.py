"""What all tests have in common."""

from hypothesis import settings

# A busy machine is no fault of the code: hypothesis would fail a test that once took longer than usual.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
