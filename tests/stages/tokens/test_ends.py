"""The tokens that end an answer: what each file of a model says, in which order of precedence, and what is refused."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, GenerationConfig

from engine.core.errors import UserError
from stages.chat.formats.chat import Chat
from stages.chat.formats.plain import Plain
from stages.chat.questions import Questions
from stages.chat.taught import Taught
from stages.models.folders import load_model, load_tokenizer
from stages.models.serving import Serving
from stages.tokens.encoder import Encoder
from stages.tokens.ends import answer_ends, declared_ends, end_behind, write_generation_config
from tests.stages.initialize.tiny import contents, make_job, make_model
from tests.stages.tokenize.conftest import BOS, EOS, byte_level, chatting, opened
from tests.stages.tokenize.templates import CHATML
from tests.stages.tokenize.test_slow import word_piece


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def chat_encoder(tmp_path_factory):
    return opened(chatting(byte_level()), tmp_path_factory.mktemp("chatting"), {"eos_token": EOS, "bos_token": BOS})


def variant(source, folder, generation=..., **config):
    """A copy of SOURCE with another generation_config.json (None: without one) and other values in config.json."""
    shutil.copytree(source, folder)
    if generation is None:
        (folder / "generation_config.json").unlink()
    elif generation is not ...:
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    edit(folder / "config.json", **config)
    return folder


def edit(path, **values):
    found = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))


def ends(folder, end=None):
    return answer_ends([folder], load_tokenizer(folder).encoder, end)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": 7}, {}, (0, 7)),
        ({"eos_token_id": [9, 7, 9]}, {}, (0, 9, 7)),
        ({"eos_token_id": [9]}, {"eos_token_id": 8}, (0, 9)),
        ({"temperature": 0.7}, {"eos_token_id": 8}, (0, 8)),
        ({"eos_token_id": None}, {"eos_token_id": [8, 3]}, (0, 8, 3)),
        (None, {"eos_token_id": [8, 3]}, (0, 8, 3)),
        (None, {"eos_token_id": ..., "text_config": {"eos_token_id": 5}}, (0, 5)),
        (None, {"eos_token_id": ...}, (0,)),
        ({"eos_token_id": []}, {"eos_token_id": -1}, (0,)),
    ],
    ids=["int", "list", "before-config", "silent", "null", "config-alone", "text-part", "absent", "none-by-convention"],
)
def test_files_name_ends_beside_the_tokenizer(tmp_path, llama, generation, config, expected):
    assert ends(variant(llama, tmp_path / "m", generation, **config)) == expected


@pytest.mark.parametrize("wrong", [300, [0, 100_000], [0, -2], "0", [0, 1.5], [True]])
def test_an_id_that_is_no_token_of_the_model_is_an_error_at_its_line(tmp_path, llama, wrong):
    folder = variant(llama, tmp_path / "m", {"do_sample": False, "eos_token_id": wrong})
    with pytest.raises(UserError, match="eos_token_id") as caught:
        ends(folder)
    (problem,) = caught.value.problems
    assert problem.where.file.endswith("m/generation_config.json") and problem.where.line == 3 and problem.hint


_IDS = st.integers(0, 299)
_NAMED = st.one_of(st.none(), _IDS, st.lists(_IDS, max_size=4))


@settings(max_examples=60)
@given(
    generation=st.one_of(st.just(...), _NAMED),
    config=_NAMED,
    end=st.sampled_from([None, "<|pad|>", "<|endoftext|>"]),
    pad=st.one_of(st.none(), _IDS),
)
def test_what_is_written_ends_answers_as_the_evaluation_does(tmp_path_factory, llama, generation, config, end, pad):
    folder = tmp_path_factory.mktemp("made")
    model = variant(llama, folder / "m", None if generation is ... else {"eos_token_id": generation}, eos_token_id=config, pad_token_id=pad)
    found = ends(model, end)
    for adapter in (True, False):
        again = written(folder / str(adapter), model, Taught(end), adapter)
        configuration = GenerationConfig.from_pretrained(again)
        said = configuration.eos_token_id if isinstance(configuration.eos_token_id, list) else [configuration.eos_token_id]
        assert {*said} == {*found} and isinstance(configuration.pad_token_id, int)
        if not adapter:
            # Served, or trained further without a format of its own, it stops at the same tokens.
            assert {*ends(again)} == {*found}
        assert {*answer_ends([model, again], load_tokenizer(model).encoder, None)} >= {*found}


def test_a_file_that_is_not_json_is_an_error_at_its_place(tmp_path, llama):
    folder = variant(llama, tmp_path / "m")
    (folder / "generation_config.json").write_text("{broken")
    with pytest.raises(UserError, match="not valid JSON") as caught:
        ends(folder)
    assert caught.value.problems[0].where.file.endswith("generation_config.json")


def test_an_added_token_may_lie_beyond_the_embeddings_of_the_base(tmp_path, llama):
    folder = variant(llama, tmp_path / "m", {"eos_token_id": [0, 300]})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert ends(folder, "<|im_end|>") == (300, 0)
    assert declared_ends(folder, 301) == (0, 300)


def test_the_format_names_the_learned_end_first(chat_encoder, tmp_path):
    def said(form):
        return [chat_encoder.tokenizer.id_to_token(end) for end in Questions(form, chat_encoder).ends()]

    assert said(Chat(template=CHATML)) == ["<|im_end|>", "<|end|>"]
    assert said(Plain()) == ["<|end|>"]


def test_of_two_tokens_behind_an_answer_the_first_ends_it(chat_encoder):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{{ eos_token }}\n{% endfor %}"
    found = Questions(Chat(template=template), chat_encoder)
    assert [chat_encoder.tokenizer.id_to_token(end) for end in found.ends()] == ["<|im_end|>", "<|end|>"]
    assert end_behind("A \n<|im_end|><|end|>", 1, ["<|end|>", "<|im_end|>"]) == "<|im_end|>"
    assert end_behind("A then", 1, ["<|end|>"]) is None


def written(folder, model, taught=Taught(), adapter=True, **more):  # noqa: B008 (frozen)
    folder.mkdir()
    if not adapter:
        for name in ("config.json", "generation_config.json"):
            if (model / name).is_file():
                shutil.copyfile(model / name, folder / name)
    Serving.of(taught, model, model, **more).write(folder)
    return folder


def test_what_says_all_already_is_written_byte_by_byte(tmp_path, llama):
    before, after = contents(llama), contents(written(tmp_path / "w", llama, adapter=False))
    assert after == {name: before[name] for name in after} and {"generation_config.json", "tokenizer.json"} <= after.keys()


def test_writing_what_was_written_changes_nothing(tmp_path, llama):
    model = variant(llama, tmp_path / "m", {"eos_token_id": [5, 9], "temperature": 0.7}, eos_token_id=3)
    taught = Taught("<|pad|>", "{{ messages[0].content }}<|pad|>")
    once = written(tmp_path / "once", model, taught, adapter=False)
    twice = written(tmp_path / "twice", once, taught, adapter=False)
    assert contents(once) == contents(twice)
    assert GenerationConfig.from_pretrained(once).eos_token_id == [1, 0, 5, 9]


def test_paths_and_versions_of_the_base_stay_behind(tmp_path, llama):
    model = variant(llama, tmp_path / "m", {"eos_token_id": 0, "transformers_version": "4.1", "_from_model_config": True})
    edit(model / "tokenizer_config.json", name_or_path="/home/me/models/x", tokenizer_file="/home/me/t.json", transformers_version="4.1")
    for data in contents(written(tmp_path / "w", model, Taught("<|pad|>", "x"))).values():
        assert b"/home" not in data and b"_version" not in data and b"name_or_path" not in data


def test_a_model_without_generation_config_gets_one_from_its_config(tmp_path, llama):
    model = variant(llama, tmp_path / "m", None, eos_token_id=[0, 4], pad_token_id=...)
    found = GenerationConfig.from_pretrained(written(tmp_path / "w", model))
    assert found.eos_token_id == [0, 4] and found.pad_token_id == 1 and found.bos_token_id == 0


@pytest.mark.parametrize(
    ("named", "pad_id", "pad"), [("<|endoftext|>", ..., "<|endoftext|>"), (None, None, "<|endoftext|>"), (None, 5, "$")]
)
def test_batches_can_be_padded_and_padding_never_hides_an_end(tmp_path, llama, named, pad_id, pad):
    generation = {"eos_token_id": 0} | ({} if pad_id is ... else {"pad_token_id": pad_id})
    model = variant(llama, tmp_path / "m", generation)
    edit(model / "tokenizer_config.json", pad_token=named)
    folder = written(tmp_path / "w", model)
    tokenizer, found = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
    assert tokenizer.pad_token == tokenizer.convert_ids_to_tokens(found.pad_token_id) and (tokenizer.pad_token == pad or pad == "$")
    assert tokenizer(["a", "a b c"], padding=True)["input_ids"] and found.eos_token_id == 0


def test_the_template_of_the_training_is_the_only_one(tmp_path, llama):
    model = variant(llama, tmp_path / "m")
    own = [{"name": "default", "template": "own"}, {"name": "tool_use", "template": "own tools"}]
    edit(model / "tokenizer_config.json", chat_template=own)
    messages = [{"role": "user", "content": "Q"}]
    kept = AutoTokenizer.from_pretrained(written(tmp_path / "plain", model))
    taught = AutoTokenizer.from_pretrained(written(tmp_path / "chat", model, Taught(None, "T{{ messages[0].content }}")))
    assert kept.apply_chat_template(messages, tokenize=False) == "own"
    assert taught.apply_chat_template(messages, tokenize=False) == "TQ"
    assert taught.apply_chat_template(messages, tools=[{"type": "function"}], tokenize=False) == "TQ"


@pytest.mark.parametrize("begin", ["", "\n", "  ", "\n  ", "{# note #}\n"])
def test_variables_of_the_format_are_defaults_of_the_written_template(tmp_path, llama, begin):
    template = begin + "{% for m in messages %}{{ m.content }}{{ thinking }}{{ depth + 1 }}{{ word }}\n{% endfor %}"
    variables = {"thinking": False, "depth": 3, "word": 'a "quoted" \\ line\nbreak, ümlaut 😀 %}'}
    encoder = load_tokenizer(llama).encoder
    found = Questions(Chat(template=template, variables=variables), encoder)
    served = AutoTokenizer.from_pretrained(written(tmp_path / "w", llama, found.taught))
    plain = AutoTokenizer.from_pretrained(llama)
    messages = [{"role": "user", "content": "Q"}]
    expected = plain.apply_chat_template(messages, chat_template=template, tokenize=False, **variables)
    assert served.apply_chat_template(messages, tokenize=False) == expected
    assert "True" in served.apply_chat_template(messages, tokenize=False, thinking=True)


def test_an_adapter_folder_opens_without_the_model_that_names_the_tokenizers_class(tmp_path, llama):
    model = variant(llama, tmp_path / "m")
    edit(model / "tokenizer_config.json", tokenizer_class=...)
    assert AutoTokenizer.from_pretrained(written(tmp_path / "w", model)).eos_token == "<|endoftext|>"


@pytest.mark.parametrize("listed", [False, True])
def test_added_tokens_are_tokens_wherever_the_tokenizer_is_opened(tmp_path, llama, listed):
    from stages.vocabulary import Parameters
    from stages.vocabulary.body import run

    model = variant(llama, tmp_path / "m")
    kept = {"content": "<|endoftext|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    edit(model / "tokenizer_config.json", **({"added_tokens_decoder": {"0": kept}, "tokenizer_class": "Qwen2Tokenizer"} if listed else {}))
    files = {f"tokenizer/{name}": model / name for name in ("tokenizer.json", "tokenizer_config.json")}
    job = make_job(tmp_path / "job", files)
    run(Parameters(special_tokens=("<|im_start|>", "<|im_end|>")), job)
    for found in (AutoTokenizer.from_pretrained(job.output), AutoTokenizer.from_pretrained(written(tmp_path / "w", job.output))):
        assert found.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [300, 301]
        assert found("<|im_end|>", add_special_tokens=False)["input_ids"] == [301]


def test_an_encoder_opens_what_was_written(tmp_path, llama):
    folder = written(tmp_path / "w", llama, Taught("<|pad|>", "x"))
    assert Encoder.open({path.name: path for path in folder.iterdir()}).template == "x"


def test_a_base_that_samples_can_be_saved(tmp_path, llama):
    from stages.models.folders import save_model

    model = variant(llama, tmp_path / "m", {"eos_token_id": [0, 5], "temperature": 0.6, "top_p": 0.9})
    save_model(load_model(model), tmp_path / "w")
    write_generation_config(tmp_path / "w", model, (0, 5), 1)
    assert GenerationConfig.from_pretrained(tmp_path / "w").temperature == 0.6


def test_a_tokenizer_in_python_is_written_with_all_its_files(tmp_path, llama):
    model = variant(llama, tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    word_piece(model)
    folder = written(tmp_path / "w", model, adapter=False)
    assert not (folder / "tokenizer.json").exists() and not list(folder.glob("*.safetensors"))
    assert load_tokenizer(folder).encode("the fox") == load_tokenizer(model).encode("the fox")


def test_an_adapter_may_name_an_end_in_the_padded_part_of_the_bases_embeddings(tmp_path, llama):
    model = variant(llama, tmp_path / "m", {"eos_token_id": [0, 310]}, vocab_size=320)
    adapter = written(tmp_path / "w", model)
    assert answer_ends([model, adapter], load_tokenizer(model).encoder, None) == (0, 310)
