"""How long an example takes says more of the machine than of the code: no deadline in this directory."""

from hypothesis import settings

# Here and not in a fixture, because @given takes the settings of the time it decorates.
settings.register_profile("no-stopwatch", deadline=None)
settings.load_profile("no-stopwatch")
