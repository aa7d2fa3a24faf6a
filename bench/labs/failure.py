"""Why a lab could not be held."""


class LabFailed(Exception):
    """What a lab needs did not come about. The message says what."""
