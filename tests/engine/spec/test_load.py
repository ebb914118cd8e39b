"""Reading files: what is no TOML, `extends`, where values come from, and several specs at once."""

import os
from pathlib import Path

import pytest

from engine.core.errors import Location, UserError
from engine.spec.load import load_spec, load_specs


def test_a_valid_spec(tmp_path, write, valid):
    spec = load_spec(write(valid), tmp_path)
    assert (spec.path, spec.files, spec.experiment.experiment.name) == ("specs/a.toml", ("specs/a.toml",), "headline")
    assert spec.experiment.tasks["headline"].prompts == ("Write a headline.\n\n{{ text }}",)
    assert spec.experiment.training.method.kind == "lora"


def test_where_names_the_value_or_the_nearest_table_around_it(tmp_path, write, valid):
    spec = load_spec(write(valid), tmp_path)
    assert str(spec.where("model", "architecture", "hidden_size")) == "specs/a.toml:6:48"
    assert str(spec.where("tasks", "headline", "prompts", 0)) == "specs/a.toml:10:12"
    assert str(spec.where("training", "method", "kind")) == "specs/a.toml:17:10"
    assert str(spec.where("model", "seed")) == "specs/a.toml:4:2"
    assert spec.where("evaluation", "rows") == Location("specs/a.toml")


def test_a_spec_outside_the_workspace_has_an_absolute_path(tmp_path, write, valid):
    path = write(valid, "elsewhere/a.toml")
    assert load_spec(path, tmp_path / "workspace").path == path.as_posix()


def test_a_linked_workspace_is_the_workspace(tmp_path, write, valid):
    path = write(valid, "real/specs/a.toml")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert load_spec(path, tmp_path / "link").path == "specs/a.toml"
    assert load_spec(tmp_path / "link/specs/a.toml", tmp_path / "real").path == "specs/a.toml"


def test_relative_paths_mean_the_same_spec(tmp_path, write, valid, monkeypatch):
    write(valid)
    monkeypatch.chdir(tmp_path)
    assert load_spec(Path("specs/../specs/a.toml"), Path()).path == "specs/a.toml"


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path, write, valid):
    path = write(valid)
    path.write_bytes(b"\xef\xbb\xbf" + valid.replace("\n", "\r\n").encode())
    spec = load_spec(path, tmp_path)
    assert str(spec.where("experiment")) == "specs/a.toml:1:2"
    assert spec.where("experiment", "name") == Location("specs/a.toml", 2, 8, 'name = "headline"', 10)


def test_bytes_that_are_not_utf8(tmp_path, write, valid):
    path = write(valid)
    path.write_bytes("[experiment]\nname = 'é".encode() + b"\xe9'\n")
    with pytest.raises(UserError) as caught:
        load_spec(path, tmp_path)
    (problem,) = caught.value.problems
    assert problem.what == "the file is not UTF-8: byte 0xe9 at offset 23"
    assert str(problem.where) == "specs/a.toml:2:10" and problem.where.source == "name = 'é\ufffd'"
    assert problem.hint == "save the file as UTF-8"


@pytest.mark.parametrize(
    ("text", "what", "place", "hint"),
    [
        ("a = \n", "not valid TOML: Invalid value", "specs/a.toml:1:5", "strings need quotes"),
        ("a = True\n", "not valid TOML: Invalid value", "specs/a.toml:1:5", "true and false"),
        ("[a]\nb = 1\nb = 2\n", "not valid TOML: Cannot overwrite a value", "specs/a.toml:3:6", "defined twice"),
        ("a = { b = 1, b = 2 }\n", "not valid TOML: Duplicate inline table key", "specs/a.toml:1:19", "defined twice"),
        ("[a]\n[a]\n", "not valid TOML: Cannot declare", "specs/a.toml:2:3", "defined twice"),
        ("a = 1\nb = [1,\n\n", "not valid TOML: ", "specs/a.toml:2:8", ""),
        ("a = 'x\n", "not valid TOML: ", "specs/a.toml:1:7", ""),
        ("a = " + "[" * 5000, "the tables or arrays are nested too deeply", "specs/a.toml", ""),
        ("a = " + "1" * 5000, "an integer has too many digits", "specs/a.toml", "64 bits"),
    ],
)
def test_what_is_no_toml(fails, text, what, place, hint):
    (problem,) = fails(text)
    assert hint in (problem.hint or "")
    assert problem.what.startswith(what) and "(at " not in problem.what
    assert str(problem.where) == place


def test_a_syntax_error_as_it_is_printed(fails):
    (problem,) = fails('[experiment]\nname = "a" "b"\n')
    assert str(problem) == (
        "error: not valid TOML: Expected newline or end of document after a statement\n"
        "  --> specs/a.toml:2:12\n"
        '  2 | name = "a" "b"\n'
        "    |            ^"
    )


def test_a_missing_spec_names_its_neighbour(tmp_path, write, valid):
    write(valid, "specs/headline.toml")
    with pytest.raises(UserError) as caught:
        load_spec(tmp_path / "specs/headlin.toml", tmp_path)
    assert str(caught.value) == "error: file not found: specs/headlin.toml\n  hint: did you mean 'headline.toml'?"


def test_a_folder_is_no_spec(tmp_path):
    with pytest.raises(UserError, match=r"cannot read \.: Is a directory"):
        load_spec(tmp_path, tmp_path)


PART = """\
[model]
name = "tiny"
architecture = { kind = "llama", hidden_size = 32 }

[training]
method = { kind = "lora", r = 8, target_modules = ["q", "v"] }
betas = [0.8, 0.9]
"""


def extending(valid: str, changes: str = "", parts: str = '"parts/a.toml"') -> str:
    """The valid spec without model and training, which a part gives."""
    start, rest = valid.split("[model]")
    return f"extends = [{parts}]\n{start}[tasks{rest.split('[tasks', 1)[1].split('[training]')[0]}{changes}"


def test_tables_merge_deep_and_the_extending_file_wins(tmp_path, write, valid):
    write(PART, "specs/parts/a.toml")
    changes = '[model.architecture]\nlayers = 2\n[training]\nbetas = [0.7, 0.9]\nmethod.r = 4\nmethod.target_modules = ["k"]\n'
    spec = load_spec(write(extending(valid, changes)), tmp_path)
    architecture, training = spec.experiment.model.architecture, spec.experiment.training
    assert (architecture.kind, architecture.hidden_size, architecture.layers) == ("llama", 32, 2)
    assert (training.betas, training.method.r, training.method.target_modules) == ((0.7, 0.9), 4, ("k",))
    assert spec.files == ("specs/a.toml", "specs/parts/a.toml")


def test_origins_name_the_file_that_won(tmp_path, write, valid):
    write(PART, "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, "[training]\nmethod.r = 4\n")), tmp_path)
    assert str(spec.where("training", "method", "target_modules")) == "specs/parts/a.toml:6:51"
    assert str(spec.where("training", "method", "r")) == "specs/a.toml:14:12"
    assert ("extends",) not in spec.origins


def test_later_parts_win_over_earlier_ones(tmp_path, write, valid):
    write(PART, "specs/parts/a.toml")
    write("[training]\nbetas = [0.1, 0.2]\nweight_decay = 1\n", "specs/parts/b.toml")
    spec = load_spec(write(extending(valid, parts='"parts/a.toml", "parts/b.toml"')), tmp_path)
    assert (spec.experiment.training.betas, spec.experiment.training.weight_decay) == ((0.1, 0.2), 1.0)
    write(extending(valid, parts='"parts/b.toml", "parts/a.toml"'))
    spec = load_spec(tmp_path / "specs/a.toml", tmp_path)
    assert (spec.experiment.training.betas, spec.experiment.training.weight_decay) == ((0.8, 0.9), 1.0)


def test_parts_extend_parts_and_each_file_is_read_once(tmp_path, write, valid):
    write(PART, "specs/base.toml")
    write('extends = ["../base.toml"]\ntraining.weight_decay = 1\n', "specs/parts/a.toml")
    write('extends = ["../base.toml"]\ntraining.max_grad_norm = 2\n', "specs/parts/b.toml")
    spec = load_spec(write(extending(valid, parts='"parts/a.toml", "parts/b.toml"')), tmp_path)
    assert spec.experiment.training.max_grad_norm == 2.0
    assert spec.files == ("specs/a.toml", "specs/parts/a.toml", "specs/base.toml", "specs/parts/b.toml")


def test_another_kind_drops_the_keys_of_the_old_one(tmp_path, write, valid):
    write(PART, "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, '[training]\nmethod = { kind = "full" }\n')), tmp_path)
    assert spec.experiment.training.method.kind == "full"
    assert ("training", "method", "r") not in spec.origins


def test_another_kind_in_another_table_form_drops_them_too(tmp_path, write, valid):
    write(PART, "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, '[model.architecture]\nkind = "gpt2"\n[training.method]\nkind = "lora"\nr = 2\n')), tmp_path)
    assert (spec.experiment.model.architecture.kind, spec.experiment.model.architecture.hidden_size) == ("gpt2", 128)
    assert spec.experiment.training.method.target_modules == ("q", "v")


def test_keys_for_a_member_that_a_part_names_alone(tmp_path, write, valid):
    write(PART.replace("method = {", "# {").replace("betas", 'method = "lora"\nbetas'), "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, "[training]\nmethod = { r = 3 }\n")), tmp_path)
    assert (spec.experiment.training.method.kind, spec.experiment.training.method.r) == ("lora", 3)
    assert str(spec.where("training", "method", "kind")) == "specs/parts/a.toml:7:10"


@pytest.mark.parametrize(
    ("part", "changes", "kept"),
    [
        ('[model]\nname = "tiny"\narchitecture = "llama"\n', 'path = "models/a"', {"path": "models/a", "name": None}),
        (f'[model]\nid = "a/b"\nrevision = "{"1" * 40}"\nname = "b"\n', 'experiment = "other"', {"experiment": "other", "merged": False}),
        (
            f'[model]\nid = "a/b"\nrevision = "{"1" * 40}"\nname = "b"\n',
            'gguf = "a.gguf"',
            {"gguf": "a.gguf", "name": None, "dtype": "float32"},
        ),
        ('[model]\ngguf = "a.gguf"\ndtype = "bfloat16"\n', 'gguf = "b.gguf"', {"gguf": "b.gguf", "name": None, "dtype": "float32"}),
        ('[model]\npath = "models/a"\nname = "a"\n', 'path = "models/b"', {"path": "models/b", "name": None}),
        ('[model]\npath = "models/a"\nname = "a"\n', 'name = "b"', {"path": "models/a", "name": "b"}),
        ('[model]\npath = "models/a"\nadapter = "theirs"\n', 'path = "models/b"', {"path": "models/b", "name": None}),
    ],
)
def test_another_model_drops_the_keys_of_the_old_one(tmp_path, write, valid, part, changes, kept):
    write(part, "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, f'[model]\n{changes}\n[training]\nmethod = "full"\n')), tmp_path)
    assert spec.experiment.model.model_dump(exclude={"tokenizer_files", "adapter", "rope_scaling"}) == kept


def test_another_adapter_drops_the_keys_of_the_old_one(tmp_path, write, valid):
    adapter = f'{{ id = "a/b", revision = "{"1" * 40}" }}'
    write(f'[model]\npath = "models/a"\nadapter = {adapter}\n', "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, '[model]\nadapter = "theirs"\n[training]\nmethod = "full"\n')), tmp_path)
    assert spec.experiment.model.adapter == "theirs"
    write('[model]\npath = "models/a"\nadapter = "theirs"\n', "specs/parts/a.toml")
    spec = load_spec(write(extending(valid, f'[model]\nadapter = {adapter}\n[training]\nmethod = "full"\n')), tmp_path)
    assert spec.experiment.model.adapter.id == "a/b"


def test_a_hub_model_s_revision_does_not_go_over_to_another_id(write, fails, valid):
    write(f'[model]\nid = "a/b"\nrevision = "{"1" * 40}"\n', "specs/parts/a.toml")
    (problem,) = fails(extending(valid, '[model]\nid = "c/d"\n[training]\nmethod = "full"\n'))
    assert problem.what == "missing key 'revision' in model" and str(problem.where) == "specs/a.toml:13:2"


def test_a_problem_stands_in_the_file_that_the_value_came_from(write, fails, valid):
    write(PART.replace("r = 8", "r = 0").replace('"tiny"', '"Tiny"'), "specs/parts/a.toml")
    found = fails(extending(valid, "[training]\nmethod.lora_alpha = 0\n"))
    assert [str(problem.where) for problem in found] == ["specs/a.toml:14:21", "specs/parts/a.toml:2:8", "specs/parts/a.toml:6:31"]


def test_a_circle_is_refused_with_its_chain(write, fails, valid):
    write('extends = ["b.toml"]\n', "specs/parts/a.toml")
    write('extends = [\n  "../a.toml",\n]\n', "specs/parts/b.toml")
    (problem,) = fails(extending(valid))
    chain = "specs/a.toml extends specs/parts/a.toml extends specs/parts/b.toml extends specs/a.toml"
    assert problem.what == f"files extend each other in a cycle: {chain}"
    assert str(problem.where) == "specs/parts/b.toml:2:3"


def test_a_file_that_extends_itself(fails, valid):
    (problem,) = fails(extending(valid, parts='"a.toml"'))
    assert problem.what.endswith("specs/a.toml extends specs/a.toml") and str(problem.where) == "specs/a.toml:1:12"


def test_missing_parts_are_all_named_with_their_neighbours(write, fails, valid):
    write(PART, "specs/parts/tiny-llama.toml")
    found = fails(extending(valid, parts='"parts/tiny-lama.toml", "nowhere/x.toml"'))
    assert [problem.what for problem in found] == ["file not found: specs/parts/tiny-lama.toml", "file not found: specs/nowhere/x.toml"]
    assert [str(problem.where) for problem in found] == ["specs/a.toml:1:12", "specs/a.toml:1:36"]
    assert [problem.hint for problem in found] == ["did you mean 'tiny-llama.toml'?", "paths in `extends` are relative to specs/a.toml"]


def test_parts_outside_the_workspace_only_by_absolute_path(tmp_path, write, valid):
    outside = write(PART, "outside.toml")
    path = write(extending(valid, parts='"../../outside.toml"'), "workspace/specs/a.toml")
    with pytest.raises(UserError) as caught:
        load_spec(path, tmp_path / "workspace")
    (problem,) = caught.value.problems
    assert problem.what == "'../../outside.toml' is outside the workspace" and str(problem.where) == "specs/a.toml:1:12"
    assert problem.hint == f"use a path inside it, or the absolute path: {outside.as_posix()}"
    write(extending(valid, parts=f'"{outside.as_posix()}"'), "workspace/specs/a.toml")
    assert load_spec(path, tmp_path / "workspace").files == ("specs/a.toml", outside.as_posix())


def test_a_part_with_a_null_character_in_its_name(fails, valid):
    (problem,) = fails(extending(valid, parts='"a\\u0000.toml"'))
    assert problem.what.startswith("file not found")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read(tmp_path, write, valid):
    path = write(valid)
    path.chmod(0)
    with pytest.raises(UserError, match=r"cannot read specs/a\.toml: Permission denied"):
        load_spec(path, tmp_path)


def test_problems_of_all_specs_come_in_one_error_and_those_of_a_shared_part_once(tmp_path, write, valid):
    write(PART.replace("r = 8", "r = 0"), "specs/parts/a.toml")
    paths = [write(extending(valid), "specs/a.toml"), write(extending(valid), "specs/b.toml"), write("x = ", "specs/c.toml")]
    with pytest.raises(UserError) as caught:
        load_specs(paths, tmp_path)
    assert [str(problem.where) for problem in caught.value.problems] == ["specs/parts/a.toml:6:31", "specs/c.toml:1:5"]


def test_two_specs_of_one_name_are_refused(tmp_path, write, valid):
    paths = [write(valid, "specs/a.toml"), write(f"# copy\n{valid}", "specs/b.toml")]
    with pytest.raises(UserError) as caught:
        load_specs(paths, tmp_path)
    assert str(caught.value) == (
        "error: specs/a.toml and specs/b.toml are both named 'headline'\n"
        "  --> specs/b.toml:3:8\n"
        '  3 | name = "headline"\n'
        "    |        ^^^^^^^^^^\n"
        "  hint: the other name is at specs/a.toml:2:8; rename one of the experiments"
    )


def test_a_spec_that_takes_the_name_of_what_it_extends_is_the_one_to_mend(tmp_path, write, valid):
    for names in (("a", "b"), ("b", "a")):
        paths = [write(valid, f"specs/{names[0]}.toml"), write(f'extends = ["{names[0]}.toml"]', f"specs/{names[1]}.toml")]
        with pytest.raises(UserError) as caught:
            load_specs(sorted(paths), tmp_path)
        (problem,) = caught.value.problems
        assert problem.what.endswith(f"are both named 'headline', set at specs/{names[0]}.toml:2:8")
        assert str(problem.where) == f"specs/{names[1]}.toml" and 'experiment.name = "..."' in str(problem.hint)


def test_one_spec_given_twice_is_one_spec(tmp_path, write, valid):
    path = write(valid)
    assert len(load_specs([path, path.parent / ".." / "specs" / "a.toml"], tmp_path)) == 1


def test_loading_imports_nothing_heavy():
    import subprocess
    import sys

    heavy = ("torch", "transformers", "peft", "tokenizers", "numpy", "datasets", "jinja2", "rich")
    code = f"import sys, engine.spec.load, engine.spec.schema, engine.spec.explain; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout == "[]\n"
