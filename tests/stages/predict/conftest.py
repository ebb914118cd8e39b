"""A tiny model that has learnt to repeat a word, so that its answers mean something."""

import pytest
import torch

from stages.models.folders import load_model, load_tokenizer, save_model
from tests.stages.initialize.tiny import make_model, texts


@pytest.fixture(scope="session")
def parrot(tmp_path_factory):
    """A Falcon that answers `say say red:` with ` red`, and ends there."""
    folder = make_model(tmp_path_factory.mktemp("parrot"), hidden_size=64)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    rows = [[*tokenizer.encode(f"{row['prompt']}{row['completion']}"), tokenizer.eos] for row in texts(80)]
    width = max(map(len, rows))
    input_ids = torch.tensor([row + [tokenizer.eos] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(60):
        model(input_ids=input_ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save_model(model, folder)
    return folder
