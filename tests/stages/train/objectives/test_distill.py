"""Distillation is the divergence that its definition says, from what the teacher's step keeps, however a global batch is divided."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from engine.core.errors import UserError
from stages import logits
from stages.logits import body
from stages.logits.body import run as predict
from stages.mix import Parameters as Mixing
from stages.mix.body import run as mix
from stages.models.folders import load_model
from stages.models.projection import predictions
from stages.process.job import Preempted
from stages.tokens.files import Tokens
from stages.tokens.top_logps import TopLogpFiles, bytes_per_position
from stages.train import Checkpoints, GlobalBatch
from stages.train.batching import Packed, Padded, PaddingFree, Unsorted
from stages.train.body import run
from stages.train.loop import trainer
from stages.train.loop.batches import Batches
from stages.train.loop.data import Rows
from stages.train.loop.distillation import Distillation
from stages.train.loop.division import Bound, Share
from stages.train.methods import Lora
from stages.train.objectives.distill import MEASURES, Distill, Taught
from tests.stages.initialize.tiny import contents, make_job, make_model
from tests.stages.train.tiny import settings, write_tokens

DISTILL = Distill(teacher="large", top_k=20, temperature=2.0, alpha=0.7)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A student and a larger teacher with the same vocabulary."""
    return [make_model(tmp_path_factory.mktemp(name), "llama", **sizes) for name, sizes in (("small", {}), ("large", {"layers": 3}))]


def tokenizer(whose, model):
    return {f"{whose}/{name}": model / name for name in ("tokenizer.json", "tokenizer_config.json")}


def asked(folder, models, rows=14, held_out=5, top_k=20, vocab=250, **more):
    """The artifact of the step that keeps what the teacher predicts, and its job."""
    student, teacher = models
    files = {"train": write_tokens(folder / "train.safetensors", rows, 0, vocab=vocab)}
    files["validation"] = write_tokens(folder / "validation.safetensors", held_out, 1, vocab=vocab)
    inputs = {"model": teacher, **files, **tokenizer("student", student), **tokenizer("teacher", teacher)}
    job = make_job(folder / "logits", inputs)
    return job, predict(logits.Parameters(top_k=top_k, threads=1), job, **more)


def student_job(folder, models, epochs=1, packed=None, top_k=20, **more):
    """A job that trains the student on random rows, with what the teacher predicts in them."""
    taught, _ = asked(folder, models, top_k=top_k, **more)
    order = make_job(folder / "mix", {"tokens/words": taught.inputs["train"]})
    mix(Mixing(epochs=epochs, bin_tokens=packed), order)
    inputs = {"model": models[0], "order": order.output, "tokens/words": taught.inputs["train"]}
    inputs |= {"validation/words": taught.inputs["validation"], "logits/words": taught.output}
    return make_job(folder / "job", inputs, plot=True)


def weights(job, **values):
    run(settings(**{"objective": DISTILL, "global_batch": GlobalBatch(rows=5), "method": Lora(r=4, lora_dropout=0.3)} | values), job)
    return load_file(job.output / "adapter_model.safetensors")


def difference(one, other):
    return max(float((one[name] - other[name]).norm() / one[name].norm().clamp_min(1e-12)) for name in one)


def random_case(seed, positions=7, vocabulary=30):
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (3 * torch.randn(positions, vocabulary, generator=generator) for _ in range(2))
    return ours.requires_grad_(), theirs, torch.randint(vocabulary, (positions,), generator=generator)


def taught_of(theirs, k):
    """What a step would keep of logits, without rounding to float16."""
    logps = log_softmax(theirs.double(), 1)
    values, ids = logps.topk(k)
    rest = torch.logsumexp(logps.scatter(1, ids, -torch.inf), 1)
    return Taught(ids, values.float(), rest.float())


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_with_the_whole_vocabulary_it_is_the_divergence_of_torch(temperature):
    ours, theirs, labels = random_case(0)
    loss, measured = Distill(teacher="t", temperature=temperature, alpha=0.3).loss_of(ours, labels, taught_of(theirs, 30), 10)
    divergence = kl_div(log_softmax(ours / temperature, 1), log_softmax(theirs / temperature, 1), reduction="sum", log_target=True) / 10
    entropy = cross_entropy(ours, labels, reduction="sum") / 10
    assert loss.item() == pytest.approx((0.7 * entropy + 0.3 * temperature**2 * divergence).item(), abs=1e-6)
    assert measured[1].item() == pytest.approx(entropy.item(), abs=1e-6), MEASURES
    (found,) = torch.autograd.grad(loss, ours, retain_graph=True)
    (expected,) = torch.autograd.grad(0.7 * entropy + 0.3 * temperature**2 * divergence, ours)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_all_tokens_but_the_likeliest_are_one_class(seed):
    """A second implementation, of probabilities in float64: k tokens and the rest, which temperature and normalisation follow."""
    k, temperature = (1, 2, 5, 17, 29)[seed], (1.0, 0.5, 2.0, 4.0, 1.0)[seed]
    ours, theirs, labels = random_case(seed + 10)
    loss, measured = Distill(teacher="t", temperature=temperature, alpha=1.0).loss_of(ours, labels, taught_of(theirs, k), 7)

    def classes(logs, kept):
        probabilities = np.exp(logs - logs.max())
        probabilities /= probabilities.sum()
        return np.array([*probabilities[kept], 1 - probabilities[kept].sum()])

    def divergence(temperature):
        total = 0.0
        for mine, its in zip(ours.detach().double().numpy(), theirs.double().numpy(), strict=True):
            kept = np.argsort(-its)[:k]
            p, q = (classes(logs, kept) ** (1 / temperature) for logs in (its, mine))
            p, q = p / p.sum(), q / q.sum()
            total += float((p * np.log(p / q)).sum())
        return total / 7

    assert loss.item() == pytest.approx(temperature**2 * divergence(temperature), rel=1e-5)
    assert measured[0].item() == pytest.approx(divergence(1.0), rel=1e-5), "measured at temperature 1"


def test_a_teacher_that_is_sure_leaves_gradients_finite():
    ours, theirs, labels = random_case(3)
    theirs[:, 4] += 500
    loss, _ = DISTILL.loss_of(ours, labels, taught_of(theirs, 3), 7)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(ours.grad).all()


def test_the_step_keeps_the_likeliest_tokens_in_files_of_whole_rows(tmp_path, models):
    whole, metrics = asked(tmp_path / "whole", models)
    parts, _ = asked(tmp_path / "parts", models, shard_bytes=10 * bytes_per_position(20))
    assert len([*parts.output.glob("train-*")]) > 3 and len([*whole.output.glob("train-*")]) == 1
    tokens = Tokens.open(whole.inputs["train"])
    assert sum(path.stat().st_size for path in whole.output.glob("train-*")) == pytest.approx(metrics["train"]["bytes"], abs=500)
    teacher = load_model(models[1])
    for row in range(len(tokens)):
        ids, supervised = (torch.from_numpy(values.astype(np.int64)) for values in tokens.row(row))
        with torch.no_grad():
            logps = log_softmax(teacher(ids[None]).logits[0, :-1][supervised[1:] > 0], 1)
        for job in (whole, parts):
            kept = TopLogpFiles(job.output, "train", tokens).of_row(row)
            expected, likeliest = logps.topk(20)
            assert (kept.ids == likeliest.numpy()).mean() > 0.95, "ties after rounding aside"
            np.testing.assert_allclose(kept.logps, expected, rtol=2e-3, atol=1e-3)
            np.testing.assert_allclose(np.exp(kept.rest.astype(float)), 1 - expected.exp().sum(1), rtol=2e-3, atol=1e-5)


def test_a_killed_step_goes_on_from_its_finished_files(tmp_path, models, monkeypatch):
    size = 10 * bytes_per_position(20)
    undisturbed, expected = asked(tmp_path / "whole", models, shard_bytes=size)
    written = []

    def killed(tensors, path):
        if len(written) == 3:
            raise Preempted("killed")
        written.append(path)
        save(tensors, path)

    save = body.save_file
    monkeypatch.setattr(body, "save_file", killed)
    with pytest.raises(Preempted):
        asked(tmp_path / "killed", models, shard_bytes=size)
    folder = tmp_path / "killed/logits"
    job = type(undisturbed)("step", {**undisturbed.inputs}, folder / "output", None, folder / "scratch")
    kept = {path.name: path.stat().st_mtime_ns for path in job.scratch.glob("*.safetensors")}
    written.clear()
    monkeypatch.setattr(body, "save_file", lambda tensors, path: (written.append(path), save(tensors, path)))
    assert predict(logits.Parameters(top_k=20, threads=1), job, shard_bytes=size) == expected
    assert contents(job.output) == contents(undisturbed.output)
    assert len(kept) == 3 and len(written) == len([*job.output.glob("*.safetensors")]) - 3


def test_a_student_comes_closer_to_its_teacher(tmp_path, models):
    values = {"global_batch": GlobalBatch(rows=7), "learning_rate": 1e-2}
    job = student_job(tmp_path / "distill", models, epochs=8)
    metrics = run(settings(objective=Distill(teacher="large", top_k=20, alpha=1.0), **values), job)
    with job.plot.open() as file:
        first, *_, last = csv.DictReader(file)
    assert [*first] == ["step", "loss", "learning_rate", "grad_norm", *MEASURES]
    assert float(first["loss"]) == pytest.approx(float(first["kl"]), abs=1e-5), "with alpha and temperature 1"
    assert float(last["kl"]) < 0.5 * float(first["kl"])
    assert metrics["validation"]["words"].keys() == set(MEASURES) and metrics["train"]["kl"] < float(first["kl"])
    assert metrics["validation_loss"]["words"] == metrics["validation"]["words"]["kl"]


def test_a_task_without_held_out_rows_is_trained(tmp_path, models):
    metrics = run(settings(objective=DISTILL, global_batch=GlobalBatch(rows=7)), student_job(tmp_path, models, held_out=0))
    assert metrics["steps"] == 2 and metrics["train"]["kl"] > 0 and metrics["validation"] == metrics["validation_loss"] == {}


def test_without_weight_it_is_supervised_training_to_the_bit(tmp_path, models):
    values = {"global_batch": GlobalBatch(rows=5), "micro_batch": 2, "method": Lora(r=4, lora_dropout=0.3)}
    one, other = student_job(tmp_path / "one", models), student_job(tmp_path / "other", models)
    distilled = run(settings(objective=Distill(teacher="large", alpha=0.0, temperature=3.0), **values), one)
    supervised = run(settings(**values), other)
    assert contents(one.output) == contents(other.output)
    assert distilled["validation_loss"] == supervised["validation_loss"] and distilled["train_loss"] == supervised["train_loss"]


def test_the_weights_do_not_depend_on_how_a_batch_is_divided_or_laid_out(tmp_path, models):
    whole = weights(student_job(tmp_path / "whole", models), micro_batch=5)
    layouts = ({"micro_batch": 1}, {"micro_batch": 3, "batching": Unsorted()}, {"micro_batch": 2, "batching": PaddingFree()})
    for number, values in enumerate(layouts):
        assert difference(whole, weights(student_job(tmp_path / str(number), models), **values)) < 1e-4, values


def test_the_parts_of_several_processes_sum_to_the_loss_of_the_batch(tmp_path, models):
    """Four processes share three rows: one of them computes a micro-batch without rows."""
    taught, _ = asked(tmp_path, models, rows=3)
    tokens = Tokens.open(taught.inputs["train"])
    rows = Rows.all_of(tokens, teacher=TopLogpFiles(taught.output, "train", tokens))
    maker, model = Batches(rows, Padded(), Bound()), load_model(models[0])
    distillation, supervised = Distillation(DISTILL, rows), int(rows.supervised().sum())

    def parts(*shares):
        for share in shares:
            for positions in maker.micro_batches(range(3), share):
                batch = maker.tensors(positions)
                loss, measured = distillation.part(*predictions(model, batch.inputs, batch.labels), positions, supervised)
                yield torch.cat([loss[None], measured])

    (whole,), divided = list(parts(Share())), list(parts(*(Share(4, index) for index in range(4))))
    assert len(divided) == 4 and not divided[3].any()
    torch.testing.assert_close(sum(divided), whole)
    model.zero_grad()
    sum(divided)[0].backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_rows_of_a_bin_keep_their_own_teacher(tmp_path, models):
    batch = {"global_batch": GlobalBatch(rows=2)}
    one = weights(student_job(tmp_path / "packed", models, packed=40), batching=Packed(length=40), **batch)
    other = weights(student_job(tmp_path / "padded", models, packed=40), batching=Padded(), **batch)
    assert difference(one, other) < 1e-4


def test_a_killed_training_resumes_to_the_bit(tmp_path, models, monkeypatch):
    values = {"method": Lora(r=4, lora_dropout=0.3), "global_batch": GlobalBatch(rows=3), "checkpoints": Checkpoints(every_steps=1)}
    parameters = settings(objective=DISTILL, **values)
    undisturbed, job = student_job(tmp_path / "whole", models), student_job(tmp_path / "killed", models)
    run(parameters, undisturbed)

    def killed(self, point):
        note(self, point)
        if point.step == 3:
            raise Preempted("killed")

    note = trainer.Trainer._note
    with monkeypatch.context() as patched, pytest.raises(Preempted):
        patched.setattr(trainer.Trainer, "_note", killed)
        run(parameters, job)
    shutil.rmtree(job.output)
    job.output.mkdir()
    run(parameters, job)
    assert contents(job.output) == contents(undisturbed.output)
    assert job.plot.read_bytes() == undisturbed.plot.read_bytes()


def test_a_teacher_of_another_vocabulary_of_too_few_tokens_or_of_other_rows_is_refused(tmp_path, models):
    other = tmp_path / "other"
    shutil.copytree(models[1], other)
    said = json.loads((other / "tokenizer.json").read_text("utf-8"))
    token = next(token for token, number in said["model"]["vocab"].items() if number == 100)
    said["model"]["vocab"]["elsewhere"] = said["model"]["vocab"].pop(token)
    (other / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    with pytest.raises(UserError, match=r"id 100 is .* to the student and is 'elsewhere' to the teacher") as caught:
        asked(tmp_path / "vocabulary", (models[0], other))
    assert str(caught.value.problems[0].where) == str(other / "tokenizer.json")
    with pytest.raises(UserError, match="top_k is 5000, but the vocabulary has 300 tokens"):
        asked(tmp_path / "many", models, top_k=5000)
    job = student_job(tmp_path / "rows", models)
    statement = job.inputs["logits/words"] / "logits.json"
    content = json.loads(statement.read_text())
    statement.write_text(json.dumps({**content, "tokens": {**content["tokens"], "train": "0" * 64}}))
    with pytest.raises(UserError, match="the logits of task 'words' were computed for other train tokens"):
        run(settings(objective=DISTILL), job)
    statement.write_text(json.dumps({**content, "vocabulary": {**content["vocabulary"], "size": 301}}))
    with pytest.raises(UserError, match="the vocabulary of task 'words' has 301 tokens, but the model has 300 logits"):
        run(settings(objective=DISTILL), job)
