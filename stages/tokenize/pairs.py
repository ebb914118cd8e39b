"""Compatibility of tokenization options with encoder-decoder models."""


def unfit(encoder_decoder: bool, mask: str, over_length: str, max_target_length: int | None) -> tuple[str, str] | None:
    """A field that is incompatible with the type of model, and why; None if all are compatible."""
    if encoder_decoder and mask != "completion":
        return "mask", "an encoder-decoder model is supervised on its labels: the mask must be completion"
    if encoder_decoder and over_length == "split":
        return "over_length", "rows of an encoder-decoder model cannot be split"
    if max_target_length and not encoder_decoder:
        return "max_target_length", "max_target_length is only for encoder-decoder models"
    return None
