"""fetch: download one revision of a model from the Hugging Face hub as an artifact."""

from engine.core.part import Kind, Part, recipe


class Parameters(Part):
    """Which model, pinned to a commit."""

    id: str = recipe(description="The model's id, such as `tiiuae/falcon-7b`.")
    revision: str = recipe(description="Full commit hash of the model's repository (40 hex digits).")


KIND = Kind("fetch", "Download one revision of a model from the hub.", Parameters)
