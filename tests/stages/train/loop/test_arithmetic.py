"""A global batch has one gradient and one loss, however it is split; every row is learnt from once; short memory changes nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from engine.core.errors import UserError
from stages.models.folders import load_model
from stages.models.projection import predictions
from stages.train import GlobalBatch
from stages.train.batching import Padded, PaddingFree, Unsorted
from stages.train.body import run
from stages.train.loop.batches import Batches
from stages.train.loop.data import Rows, global_batches
from stages.train.loop.division import Bound, Share
from stages.train.loop.dropout import install
from stages.train.loop.isolation import PADDED, isolate
from stages.train.loop.loss import token_loss
from stages.train.loop.training import matter
from stages.train.methods import Lora
from tests.stages.train.tiny import settings, training_job


@pytest.fixture(scope="module")
def adapted(falcon, tmp_path_factory):
    """A model with an adapter that drops, and its rows; the updates are no zeros."""
    job = training_job(tmp_path_factory.mktemp("rows"), falcon)
    found = matter(settings(method=Lora(r=4, lora_dropout=0.2)), job)
    torch.manual_seed(1)
    for name, weight in found.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return found.model.train(), found.rows, install(found.model, 5)


def gradient(adapted, layout, batch, count, micro_rows):
    """Gradient and loss of a global batch that COUNT processes compute, one after another, in parts of MICRO_ROWS."""
    model, rows, keys = adapted
    model.zero_grad()
    supervised = int(rows.supervised()[batch.start : batch.stop].sum())
    maker = Batches(rows, layout, Bound(micro_rows), isolate(model) if layout.flat else PADDED)
    model.train()
    total = 0.0
    for index in range(count):
        for part in maker.micro_batches(batch, Share(count, index)):
            made = maker.tensors(part)
            keys.of_batch(made.positions, made.offsets, layout.flat)
            loss = token_loss(*predictions(model, made.inputs, made.labels), supervised)
            loss.backward()
            total += float(loss.detach())
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]), total


@limits(max_examples=25, deadline=None)
@given(
    st.sampled_from([Padded(), PaddingFree(), Unsorted()]),
    st.integers(0, 20),
    st.integers(1, 12),
    st.integers(1, 4),
    st.none() | st.integers(1, 6),
)
def test_any_split_gives_the_gradient_of_one_big_batch(adapted, layout, start, size, count, micro_rows):
    """Dropout included: its masks belong to rows."""
    batch = range(start, min(start + size, 22))
    whole, loss = gradient(adapted, Unsorted(), batch, 1, None)
    split, other = gradient(adapted, layout, batch, count, micro_rows)
    assert float((split - whole).norm() / whole.norm()) <= 1e-5
    assert other == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("batch", [GlobalBatch(rows=6), GlobalBatch(tokens=50)])
@pytest.mark.parametrize("micro_batch", [None, 1, 4])
def test_every_row_is_learnt_from_once_in_the_mixtures_order(tmp_path, falcon, monkeypatch, batch, micro_batch):
    seen, original = [], Batches.tensors
    job = training_job(tmp_path, falcon)
    for role in [role for role in job.inputs if role.startswith("validation/")]:
        del job.inputs[role]
    monkeypatch.setattr(Batches, "tensors", lambda self, positions: seen.extend(positions) or original(self, positions))
    metrics = run(settings(global_batch=batch, micro_batch=micro_batch), job)
    rows = Rows.open(job.inputs["order"], job.group("tokens"))
    batches = global_batches(rows, batch.rows, batch.tokens)
    assert metrics["rows"] == len(seen) == 22 and metrics["steps"] == len(batches)
    assert all(set(seen[positions.start : positions.stop]) == set(positions) for positions in batches)


def short_of_memory(model, rows_that_fit, error):
    """Make MODEL fail with ERROR where more rows are computed at once."""

    def refuse(module, arguments, options):
        if len(options["input_ids"]) > rows_that_fit:
            raise error

    return model.register_forward_pre_hook(refuse, with_kwargs=True)


def allocator():
    """What torch itself says when it cannot allocate."""
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has a lot of memory")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), allocator()], ids=["python", "cuda", "cpu"])
@pytest.mark.parametrize("method", [Lora(r=4, lora_dropout=0.2)])
def test_a_micro_batch_is_halved_until_it_fits_and_the_result_is_the_same(tmp_path, falcon, monkeypatch, error, method):
    from stages.train.loop import training as work

    plain = training_job(tmp_path / "plain", falcon)
    run(settings(method=method), plain)
    original = work.open_model

    def tight(parameters, folder):
        model = original(parameters, folder)
        short_of_memory(model, 2, error)
        return model

    monkeypatch.setattr(work, "open_model", tight)
    job = training_job(tmp_path / "tight", falcon)
    run(settings(method=method), job)
    from safetensors.torch import load_file

    one, other = (load_file(each.output / "adapter_model.safetensors") for each in (plain, job))
    assert max(float((one[name] - other[name]).norm() / one[name].norm()) for name in one) < 1e-4


@pytest.mark.parametrize(
    ("micro_batch", "what"), [(4, "out of memory with a micro-batch of 4 rows"), (None, "even with a micro-batch of one row")]
)
def test_what_cannot_be_halved_is_an_error_that_says_what_to_change(tmp_path, falcon, monkeypatch, micro_batch, what):
    from stages.train.loop import training as work

    def tight(parameters, folder):
        model = load_model(folder)
        short_of_memory(model, 0, MemoryError())
        return model

    monkeypatch.setattr(work, "open_model", tight)
    with pytest.raises(UserError, match=what) as caught:
        run(settings(micro_batch=micro_batch), training_job(tmp_path, falcon))
    assert caught.value.problems[0].hint


def test_other_errors_of_the_machine_are_not_taken_for_short_memory(tmp_path, falcon, monkeypatch):
    from stages.train.loop import training as work

    def broken(parameters, folder):
        model = load_model(folder)
        short_of_memory(model, 0, RuntimeError("a layer is broken"))
        return model

    monkeypatch.setattr(work, "open_model", broken)
    with pytest.raises(RuntimeError, match="a layer is broken"):
        run(settings(), training_job(tmp_path, falcon))
