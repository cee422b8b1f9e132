"""A token scorer as a file, and the checks that it is the one a plan names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.memory.writer import MemoryWriter
from model.plan import MemoryPlan
from model.prefix import encode_prefix
from model.token_scorer import TOKEN_SCORER_FILE, TokenScorer, TokenScorerError, find_token_scorer
from tests.helpers.tiny_model import PREFIX_TOKENS, random_tokens, tiny_config, tiny_plan, tiny_scorer, tiny_transformer


def plan_for(scorer: TokenScorer) -> MemoryPlan:
    return tiny_plan(selection="trained", token_scorer=scorer.identity)


@pytest.fixture
def scorer() -> TokenScorer:
    return tiny_scorer(tiny_transformer())


def test_what_is_saved_is_found_beside_its_adapter(scorer: TokenScorer, tmp_path: Path) -> None:
    scorer.save(tmp_path / TOKEN_SCORER_FILE)
    found = find_token_scorer(plan_for(scorer), tiny_config(), tmp_path)
    assert found is not None
    assert torch.equal(found.weight_LKF, scorer.weight_LKF)
    assert found.identity == scorer.identity != TokenScorer(scorer.weight_LKF + 1e-3).identity
    assert find_token_scorer(tiny_plan(), tiny_config(), None) is None


def test_the_correction_is_one_product_for_each_head(scorer: TokenScorer) -> None:
    config = tiny_config()
    plain_BATD = torch.randn(2, config.fused_heads, 5, config.head_dim)
    correction_BKT = scorer.correct(1, plain_BATD)
    assert correction_BKT.shape == (2, config.num_kv_heads, 5)
    expected = float(scorer.weight_LKF[1, 1] @ plain_BATD[0, :, 3].flatten())
    assert float(correction_BKT[0, 1, 3]) == pytest.approx(expected, abs=1e-4)


def test_a_wrong_or_missing_scorer_is_refused(scorer: TokenScorer, tmp_path: Path) -> None:
    plan = plan_for(scorer)
    with pytest.raises(TokenScorerError, match="no adapter is given"):
        find_token_scorer(plan, tiny_config(), None)
    with pytest.raises(TokenScorerError, match=r"token_scorer\.safetensors is no token scorer"):
        find_token_scorer(plan, tiny_config(), tmp_path)
    TokenScorer(scorer.weight_LKF + 1).save(tmp_path / TOKEN_SCORER_FILE)
    with pytest.raises(TokenScorerError, match=f"token scorer {scorer.identity}, the model has"):
        find_token_scorer(plan, tiny_config(), tmp_path)
    scorer.save(tmp_path / TOKEN_SCORER_FILE)
    with pytest.raises(TokenScorerError, match=r"has weights of shape \(2, 2, 128\), plan 'tiny' and the model need"):
        find_token_scorer(plan, tiny_config(num_kv_heads=4), tmp_path)


def test_damaged_files_and_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / TOKEN_SCORER_FILE).write_bytes(b"not tensors")
    with pytest.raises(TokenScorerError, match="is no token scorer"):
        TokenScorer.load(tmp_path / TOKEN_SCORER_FILE)
    with pytest.raises(TokenScorerError, match=r"shape \(3,\)"):
        TokenScorer(torch.zeros(3))
    with pytest.raises(TokenScorerError, match="not finite"):
        TokenScorer(torch.full((1, 1, 2), torch.nan))


def test_nothing_is_written_with_another_scorer(scorer: TokenScorer) -> None:
    transformer = tiny_transformer()
    writer = MemoryWriter(transformer, plan_for(scorer), encode_prefix(transformer, PREFIX_TOKENS))
    with pytest.raises(TokenScorerError, match="the model has none"):
        writer.write([random_tokens(9)])
    transformer.token_scorer = TokenScorer(scorer.weight_LKF * 2)
    with pytest.raises(TokenScorerError, match=transformer.token_scorer.identity):
        writer.write([random_tokens(9)])


def test_it_chooses_other_tokens_than_reconstruction(scorer: TokenScorer) -> None:
    """Without this, equality with the naive twin would say little."""
    transformer = tiny_transformer()
    transformer.token_scorer = scorer
    prefix = encode_prefix(transformer, PREFIX_TOKENS)
    places = [
        MemoryWriter(transformer, plan, prefix).write([random_tokens(60)])[0].positions_LKS
        for plan in (plan_for(scorer), tiny_plan(selection="reconstruction"))
    ]
    assert (places[0] != places[1]).float().mean() > 0.3
