"""The choices that a user has about stamping. Pure."""

import enum


class StampMode(enum.StrEnum):
    """What to do with scoped requests."""

    ALWAYS = "always"  # strip whatever the client sent and stamp
    MISSING = "missing"  # leave an envelope of the client's own, stamp where there is none
    NEVER = "never"  # only observe


class OnFailure(enum.StrEnum):
    """What to do when the desktop was asked and gave no token."""

    SEND = "send"  # send the failure status, as the original does
    REFUSE = "refuse"  # answer 503 and send nothing
