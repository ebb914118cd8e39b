"""Runs llama.cpp's converter in a process of its own: `python -P converting.py < request.json`; imports nothing of ours.

The converter brings its own version of the `gguf` package, which must not meet the installed one. It decides the layout of weights and the
hyperparameters; the vocabulary, the special tokens and the chat template are those that the request gives, since the converter recognises
tokenizers by a hash and knows nothing of the format that a training taught. Names are left out: equal models have equal bytes.
"""

import contextlib
import json
import logging
import runpy
import sys
from pathlib import Path
from typing import Any

_OF_TOKENS = ("tokenizer.chat_template", "tokenizer.ggml.add_")
_KEPT = ("general.architecture", "general.file_type", "general.quantization_version", "general.type", "general.alignment")


def main() -> None:
    """Convert as the request on stdin says: a model, or with `adapter` an adapter on the model whose configuration is in `model`."""
    request = json.load(sys.stdin)
    converter = request["converter"]
    sys.path[:0] = [converter, str(Path(converter) / "gguf-py")]
    logging.disable(logging.WARNING)
    try:
        # The converter prints to stdout and shows progress.
        with contextlib.redirect_stdout(sys.stderr):
            (_adapter if "adapter" in request else _model)(request)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}", file=sys.stderr)
        sys.exit(1)


def _adapter(request: dict[str, Any]) -> None:
    script = str(Path(request["converter"]) / "convert_lora_to_gguf.py")
    sys.argv = [script, "--base", request["model"], "--outfile", request["file"], "--outtype", request["type"], request["adapter"]]
    runpy.run_path(script, run_name="__main__")


def _model(request: dict[str, Any]) -> None:
    import gguf  # type: ignore[import-not-found, unused-ignore]
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # type: ignore[import-not-found, unused-ignore]

    folder = Path(request["model"])
    settings = _with_former_names(ModelBase.load_hparams(folder, False))
    converter = get_model_class(get_model_architecture(settings, ModelType.TEXT))

    class Converter(converter):  # type: ignore[misc, valid-type, unused-ignore]
        model_arch = converter.model_arch

        def set_vocab(self) -> None:
            vocabulary = request["vocabulary"]
            if vocabulary["tokens"] is None:
                super().set_vocab()
            else:
                self._write_tokens(vocabulary)
            for values in self.gguf_writer.kv_data:
                for key in [key for key in values if key.startswith(_OF_TOKENS) or key.endswith(("_token_id", "_token_ids"))]:
                    del values[key]
            for key, value in vocabulary["special"].items():
                self.gguf_writer.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
            self.gguf_writer.add_bool("tokenizer.ggml.add_bos_token", vocabulary["add_bos"])
            self.gguf_writer.add_bool("tokenizer.ggml.add_eos_token", False)
            if vocabulary["template"] is not None:
                self.gguf_writer.add_chat_template(vocabulary["template"])

        def _write_tokens(self, vocabulary: dict[str, Any]) -> None:
            rule = vocabulary["pre_tokenizer"]
            if rule is None:
                _, _, rule = self.get_vocab_base()
            size = self.hparams.get("vocab_size", len(vocabulary["tokens"]))
            missing = range(len(vocabulary["tokens"]), size)
            self.gguf_writer.add_tokenizer_model("gpt2")
            self.gguf_writer.add_tokenizer_pre(rule)
            self.gguf_writer.add_token_list([*vocabulary["tokens"], *(f"[PAD{number}]" for number in missing)])
            self.gguf_writer.add_token_types([*vocabulary["types"], *(gguf.TokenType.UNUSED for _ in missing)])
            self.gguf_writer.add_token_merges(vocabulary["merges"])

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Any:
            yield from super().modify_tensors(data_torch, name, bid)
            if name == "gpt_neox.embed_in.weight" and self.hparams.get("tie_word_embeddings"):
                # llama.cpp has no GPT-NeoX with tied embeddings.
                yield "output.weight", data_torch

        def prepare_metadata(self, vocab_only: bool) -> None:
            super().prepare_metadata(vocab_only)
            for values in self.gguf_writer.kv_data:
                for key in [key for key in values if key.startswith("general.") and key not in _KEPT]:
                    del values[key]

    types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        Converter(folder, types[request["type"]], Path(request["file"]), hparams=settings).write()


def _with_former_names(settings: dict[str, Any]) -> dict[str, Any]:
    """SETTINGS with the names that the converter still reads and transformers 5 no longer writes."""
    former = {"n_ctx": settings.get("n_positions"), "rotary_pct": (settings.get("rope_parameters") or {}).get("partial_rotary_factor")}
    return {name: value for name, value in former.items() if value is not None} | settings


if __name__ == "__main__":
    main()
