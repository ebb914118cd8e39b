"""What goes with inputs and labels of their own, as encoder-decoder models have them, and what does not."""


def unfit(encoder_decoder: bool, mask: str, over_length: str, max_target_length: int | None) -> tuple[str, str] | None:
    """The field that does not go with such a model, or with a causal one, and what is wrong with it; None where all do."""
    if encoder_decoder and mask != "completion":
        return "mask", "an encoder-decoder model learns its labels: the mask must be completion"
    if encoder_decoder and over_length == "split":
        return "over_length", "rows of an encoder-decoder model cannot be split"
    if max_target_length and not encoder_decoder:
        return "max_target_length", "max_target_length is for encoder-decoder models, and this one is none"
    return None
