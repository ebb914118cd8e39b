"""Former name of stages.tokens.files."""

from stages.tokens.files import *  # noqa: F403
