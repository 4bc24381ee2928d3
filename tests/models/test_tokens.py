"""Rows side by side: left padding changes nothing that the model computes."""

import pytest
import torch

from mechlab.models.tokens import pad_left, position_ids

TEXTS = ["The capital of France is Paris", "Rome", "The river was near Oslo in Norway and"]


def test_shorter_rows_are_padded_on_the_left_under_a_mask() -> None:
    tokens, mask = pad_left([[5, 6, 7], [8]], filler=2)
    assert tokens.tolist() == [[5, 6, 7], [2, 2, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_positions_count_from_the_first_real_token() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    assert position_ids(mask).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]


def test_a_batch_describes_each_row(toy_model) -> None:
    batch = toy_model("llama").tokenize(TEXTS)
    assert batch.lengths == (7, 2, 9) and batch.starts == (2, 7, 0)
    assert len(batch) == 3 and batch.width == 9
    assert batch.tokens.dtype == batch.mask.dtype == torch.int64
    assert torch.equal(batch.mask.sum(1), torch.tensor(batch.lengths))
    assert batch.row(1).tolist() == batch.tokens[1, 7:].tolist()
    assert batch.texts == tuple(TEXTS)
    assert [len(offsets) for offsets in batch.offsets] == [7, 2, 9]
    assert [TEXTS[1][a:b] for a, b in batch.offsets[1]] == ["", "Rome"]


def test_a_batch_moves_as_a_whole(toy_model) -> None:
    moved = toy_model("llama").tokenize(TEXTS).to("meta")
    assert moved.tokens.device.type == moved.mask.device.type == "meta"
    assert moved.lengths == (7, 2, 9)


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_padded_rows_equal_unpadded_ones(toy_model, family: str, kind: str) -> None:
    model = toy_model(family, kind)
    batch = model.tokenize(TEXTS)
    with torch.no_grad():
        together = model.bridge(batch.tokens, attention_mask=batch.mask)[:, -1]
        alone = torch.cat([model.bridge(model.tokenize(text).tokens)[:, -1] for text in TEXTS])
        unmasked = model.bridge(batch.tokens)[:, -1]
    assert torch.allclose(together, alone, atol=1e-5, rtol=0)
    # Without the mask the padding is read, so the agreement above is not an accident.
    assert (unmasked - alone)[1].abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_ids_equal_those_of_plain_hugging_face(toy_model, kind: str) -> None:
    model = toy_model("gpt2", kind)
    for text in TEXTS:
        assert model.tokenize(text).tokens[0].tolist() == model.tokenizer.encode(text)
