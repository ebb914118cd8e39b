"""Former name of stages.rows.predictions."""

from stages.rows.predictions import *  # noqa: F403
