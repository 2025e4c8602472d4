"""BranchingLM gives HFLM's log-likelihoods."""

import random
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from evaluate_helpers import TOKENIZER, VOCABULARY, assert_same, stock, text, text_requests, tiny_model
from helpers import EXPERTS, FAMILIES, tiny_experts, tiny_family
from lm_eval.models.huggingface import HFLM

from stages.common.errors import UserError
from stages.evaluate import language_model
from stages.evaluate.language_model import BranchingLM, can_branch
from stages.evaluate.precision import cast_weights
from stages.evaluate.resume import Kept


def token_requests(seed: int, max_context: int = 40) -> list:
    """Return requests with shared, nested, repeated and over-long contexts, answers of one and of several tokens."""
    rng = random.Random(seed)

    def draw(count):
        return [rng.randrange(VOCABULARY) for _ in range(count)]

    requests = []
    for _ in range(12):
        context = draw(rng.randint(1, max_context))
        for _ in range(rng.randint(1, 5)):
            answer = draw(rng.choice([1, 1, 2, 5, 9]))
            requests.append((("", ""), context, answer))
            requests.append((("", ""), context[: rng.randint(1, len(context))], answer))
            requests.append((("", ""), context + answer[:1], answer))
    rng.shuffle(requests)
    return [*requests, *requests[:5]]


@pytest.mark.parametrize("kind", ["MHA", "GQA", "MQA", "tied", "pruned"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_tokens", [16, 300])
def test_same_as_hflm(kind, attention, batch_tokens):
    weights = tiny_model(kind)
    model = type(weights)._from_config(deepcopy(weights.config), attn_implementation=attention).eval()
    model.load_state_dict(weights.state_dict())
    requests = token_requests(seed=1)
    ours = BranchingLM(model, TOKENIZER, batch_tokens)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(ours, stock(model)._loglikelihood_tokens(requests, disable_tqdm=True))


def test_long_contexts_are_cut_from_the_left():
    model = tiny_model()
    model.config.max_position_embeddings = 16
    requests = token_requests(seed=2)
    assert any(len(context) + len(answer) > 17 for _, context, answer in requests)
    branching = BranchingLM(model, TOKENIZER, 64)
    assert branching.max_length == 16
    ours = branching._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(ours, stock(model)._loglikelihood_tokens(requests, disable_tqdm=True))


def test_against_float64():
    model = tiny_model()
    requests = token_requests(seed=3)
    ours = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests, disable_tqdm=True)
    model.double()
    with torch.no_grad():
        for (total, _), (_, context, answer) in zip(ours, requests, strict=True):
            log_probabilities = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
            wanted = sum(log_probabilities[len(context) - 1 + i, token].item() for i, token in enumerate(answer))
            assert total == pytest.approx(wanted, rel=0, abs=1e-4)


def test_one_text_split_at_two_places():
    """HFLM's logits cache (0.4.13) gives the shorter of two such answers the probabilities of the wrong positions."""
    model = tiny_model()
    requests = [(("", ""), [5, 6, 7], [8, 9, 10]), (("", ""), [5, 6, 7, 8], [9, 10])]
    ours = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(ours, stock(model)._loglikelihood_tokens(requests, disable_tqdm=True))


def test_greedy_answers_are_found():
    model = tiny_model()
    context = [3, 4, 5]
    with torch.no_grad():
        best = model(torch.tensor([context])).logits[0, -1].argmax().item()
    requests = [(("", ""), context, [best]), (("", ""), context, [(best + 1) % VOCABULARY])]
    results = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert [greedy for _, greedy in results] == [True, False]


def test_rolling_log_likelihood():
    model, rng = tiny_model(), random.Random(5)
    model.config.max_position_embeddings = 16
    requests = text_requests([(text(rng, 30),) for _ in range(3)], "loglikelihood_rolling")
    ours = BranchingLM(model, TOKENIZER, 64).loglikelihood_rolling(requests, True)
    assert ours == pytest.approx(stock(model).loglikelihood_rolling(requests, True), rel=0, abs=5e-4)


def test_half_precision_is_summed_in_float32():
    """In bfloat16 log-probabilities themselves are rounded to 8 bits: unequal answers would tie."""
    model = tiny_model().bfloat16()
    requests = token_requests(seed=6)
    ours = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests, disable_tqdm=True)
    reference = HFLM(model, tokenizer=TOKENIZER, batch_size=1, logits_cache=False, softmax_dtype="float32")
    assert_same(ours, reference._loglikelihood_tokens(requests, disable_tqdm=True), tolerance=0.5)
    single = [total for (total, _), (_, _, answer) in zip(ours, requests, strict=True) if len(answer) == 1]
    assert any(total != torch.tensor(total).bfloat16().item() for total in single)


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERTS])
@pytest.mark.parametrize(("attention", "longest"), [("sdpa", 40), ("eager", 5)])
def test_same_as_hflm_for_every_architecture(family, attention, longest):
    """A sliding window is 6 tokens: requests of up to 40 do not fit it, those of up to 5 and an answer of one do."""
    model = tiny_experts(family, vocab=VOCABULARY) if family in EXPERTS else tiny_family(family, vocab=VOCABULARY)
    if model._supports_sdpa:  # transformers refuses it for Gemma 2, whose scores have a soft cap
        model.set_attn_implementation(attention)
    requests = token_requests(seed=7, max_context=longest)
    if longest == 5:
        requests = [(texts, context[:5], answer[:1]) for texts, context, answer in requests]
    ours = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests, disable_tqdm=True)
    assert_same(ours, stock(model)._loglikelihood_tokens(requests, disable_tqdm=True))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"model_type": "pruned_llama", "_attn_implementation": "eager"}, True),
        ({"rope_parameters": {"rope_type": "llama3"}}, True),
        ({"rope_parameters": {"rope_type": "dynamic"}}, False),
        ({"_attn_implementation": "flash_attention_2"}, False),
        ({"model_type": "gpt2"}, False),
        ({"model_type": "pruned_mistral", "sliding_window": None}, True),
        ({"model_type": "mistral", "sliding_window": 10}, True),
        ({"model_type": "mistral", "sliding_window": 9}, False),
    ],
)
def test_which_models_can_branch(changed, expected):
    config = {"model_type": "llama", "_attn_implementation": "sdpa", "rope_parameters": {"rope_type": "default"}}
    assert can_branch(SimpleNamespace(config=SimpleNamespace(**config | changed)), longest=10) is expected


def test_prompts_without_a_token_and_answers_longer_than_the_context():
    model = tiny_model()
    model.config.max_position_embeddings = 16
    ours = BranchingLM(model, TOKENIZER, 100)
    for pair, message in [
        (("  ", "the tree"), "its prompt '  ' has no token"),
        (("the tree", " y" * 17), "an answer of 34 tokens exceeds the model's context of 16"),
    ]:
        with pytest.raises(AssertionError):
            stock(model).loglikelihood(text_requests([pair]), True)
        with pytest.raises(UserError, match=message):
            ours.loglikelihood(text_requests([pair]))


@pytest.mark.parametrize("branch", [True, False])
def test_requests_go_on_from_what_was_kept(branch, monkeypatch, tmp_path):
    model, requests = tiny_model(), token_requests(seed=8)
    if not branch:
        monkeypatch.setattr(language_model, "can_branch", lambda *_: False)
        monkeypatch.setattr(language_model, "UNBRANCHED", 5)
    ours = BranchingLM(model, TOKENIZER, 100)
    whole = ours._loglikelihood_tokens(requests)
    assert_same(whole, stock(model)._loglikelihood_tokens(requests, disable_tqdm=True))
    scores = ours.batches(requests)
    assert len(scores) > 4
    kept = Kept(tmp_path / "answers")
    for score in scores[:3]:
        kept.add([[index, *result] for index, result in score()])
    kept.save()
    ours.begin({}, Kept(tmp_path / "answers"))
    counted = []
    monkeypatch.setattr(ours, "batches", lambda requests: [lambda s=s: counted.append(s) or s() for s in scores])
    assert ours._loglikelihood_tokens(requests) == whole
    assert counted == scores[3:]
    ours._loglikelihood_tokens(requests)
    assert len(counted) == 2 * len(scores) - 3, "what was kept is for one call"


@pytest.mark.parametrize("branch", [True, False])
def test_bfloat16_arithmetic(branch, monkeypatch):
    """Products are taken in bfloat16, as HFLM does with a mixed precision; log-softmax stays in float32."""
    model, requests = tiny_model(), token_requests(seed=9)
    monkeypatch.setattr(language_model, "can_branch", lambda *_: branch)
    with torch.autocast("cpu", torch.bfloat16):
        ours = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests)
    theirs = HFLM(
        model, tokenizer=TOKENIZER, batch_size=1, logits_cache=False, softmax_dtype="float32",
        mixed_precision_dtype="bfloat16",
    )._loglikelihood_tokens(requests, disable_tqdm=True)  # fmt: skip
    exact = BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests)
    for (total, _), (reference, _), (full, _) in zip(ours, theirs, exact, strict=True):
        assert total == pytest.approx(reference, rel=0, abs=0.5)
        assert total != full


@pytest.mark.parametrize("kind", ["GQA", "tied", "pruned"])
def test_rounded_weights_give_what_autocast_gives(kind):
    requests = token_requests(seed=10)
    results = []
    for rounded in (False, True):
        model = tiny_model(kind)
        with torch.autocast("cpu", torch.bfloat16):
            if rounded:
                cast_weights(model)
                assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
            assert model.dtype == model.get_input_embeddings().weight.dtype == torch.float32
            results.append(BranchingLM(model, TOKENIZER, 100)._loglikelihood_tokens(requests))
    assert results[0] == results[1]


def test_weights_stay_as_they_are_without_autocast():
    model = tiny_model()
    cast_weights(model)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
