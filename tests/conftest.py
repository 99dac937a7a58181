"""What all tests share."""

from hypothesis import settings

# No test here is about time: a busy machine must not fail one.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
