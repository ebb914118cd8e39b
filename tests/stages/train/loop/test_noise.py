"""NEFTune's noise: of the size that its paper gives, on the rows' own tokens, and the same however a batch is split."""

import pytest
import torch

from stages.train.loop.dropout import RowKeys
from stages.train.loop.noise import add_noise
from stages.train.methods import Full
from tests.stages.train.matrix import loaded
from tests.stages.train.test_body import difference, trained

LENGTHS = torch.tensor([6, 4, 6])


def noisy(alpha=5.0):
    model = loaded("Llama", Full())
    keys = RowKeys(3)
    add_noise(model, alpha, keys, LENGTHS)
    embeddings = model.get_input_embeddings()
    return embeddings.train(), keys


def drawn(embeddings, keys, rows, length=6):
    keys.set(torch.tensor(rows))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    with torch.no_grad():
        return embeddings(ids) - embeddings.weight[0]


def test_it_is_as_large_as_the_paper_says_and_even():
    noise = drawn(*noisy(), [0, 1])
    bounds = 5.0 / torch.sqrt(LENGTHS[:2] * 32.0)
    for row, bound in zip(noise, bounds, strict=True):
        assert bound * 0.9 < row.abs().max() <= bound * 1.0001
        assert abs(float(row.mean())) < bound * 0.15 and float(row.std()) == pytest.approx(float(bound) / 3**0.5, rel=0.15)


def test_a_row_has_the_same_noise_in_any_company():
    embeddings, keys = noisy()
    together = drawn(embeddings, keys, [0, 1, 2])
    alone = drawn(embeddings, keys, [2], length=9)
    torch.testing.assert_close(alone[0, :6], together[2])
    assert not torch.allclose(together[0], together[2])


def test_there_is_none_without_training():
    embeddings, keys = noisy()
    assert not drawn(embeddings.eval(), keys, [0, 1]).any()


def test_a_training_with_it_is_another_one_and_does_not_depend_on_the_split(tmp_path, falcon):
    plain, whole, split = (
        trained(tmp_path / name, falcon, neftune_noise_alpha=alpha, micro_batch=micro)
        for name, alpha, micro in (("plain", None, None), ("whole", 5.0, None), ("split", 5.0, 2))
    )
    assert difference(plain[1], whole[1]) > 1e-3 and difference(whole[1], split[1]) < 1e-5
