"""The tokenizers that models come with: special tokens before and after a text, or none; tokens that cross words."""

import random

import pytest
from evaluate_helpers import TOKENIZER, assert_same, stock, text, text_requests, tiny_model, tiny_tokenizer
from helpers import wrapped
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from stages.common.errors import UserError
from stages.evaluate.language_model import BranchingLM


def test_texts_are_encoded_as_hflm_encodes_them():
    model, rng = tiny_model(), random.Random(4)
    pairs = [(text(rng, 6), " " + text(rng, 2)) for _ in range(10)]
    pairs += [("", "no context"), ("blanks behind  ", "join the answer"), ("<end>bos already", " there"), ("é", " ü")]
    requests = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]
    ours = BranchingLM(model, TOKENIZER, 100)
    assert_same(ours.loglikelihood(requests, True), stock(model).loglikelihood(requests, True))
    for context, continuation in pairs[:10]:
        assert ours._encode_pair(context, continuation) == stock(model)._encode_pair(context, continuation)


def test_a_tokenizer_that_adds_a_bos():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<end>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", 0)]
    )
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(
            [("the tree", " grows"), ("the tree", " flat"), ("<end>the wall", " by"), ("", "year")]
        )
    ]
    model = tiny_model()
    ours = BranchingLM(model, tokenizer, 100)
    theirs = HFLM(model, tokenizer=tokenizer, batch_size=1, logits_cache=False)
    assert ours.tok_encode("the")[0] == 0
    assert_same(ours.loglikelihood(requests, True), theirs.loglikelihood(requests, True))
    assert "year" in ours.encoded
    assert ours.tok_encode("year", add_special_tokens=False) == theirs.tok_encode("year", add_special_tokens=False)


def tokenizer_without_bos_and_eos():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = None
    return tokenizer


def test_a_tokenizer_with_neither_bos_nor_eos():
    """HFLM fails with a TypeError; the numbers are those that it gives with an EOS, which stands in no request."""
    requests = text_requests([("the tree", " grows"), ("the tree ", "flat"), ("a wall", " by pruning every branch")])
    model = tiny_model()
    ours = BranchingLM(model, tokenizer_without_bos_and_eos(), 100)
    assert ours.prefix_token_id is None
    assert_same(ours.loglikelihood(requests, True), stock(model).loglikelihood(requests, True))
    assert ours.tok_encode("not seen") == TOKENIZER("not seen")["input_ids"]
    (request,) = text_requests([("", "year")])
    request.task_name, request.doc_id = "ending", 3
    with pytest.raises(UserError, match=r"^task ending, question 3: its prompt is empty, and the tokenizer"):
        ours.loglikelihood([request])


def crossing_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer for which "Answer: yes" is one token."""
    vocabulary = {"<end>": 0, **{symbol: i for i, symbol in enumerate("Answer: yeso", 1) if symbol not in "re"}}
    vocabulary |= {"r": 20, "e": 21, "Answer:": 22, "Answer: yes": 23}
    merges, merged = [], "A"
    for symbol in "nswer: yes":
        merges.append((merged, symbol))
        merged += symbol
        vocabulary.setdefault(merged, len(vocabulary) + 30)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def test_an_answer_without_a_token_of_its_own():
    tokenizer, model = crossing_tokenizer(), tiny_model()
    assert len(tokenizer("Answer: yes")["input_ids"]) == len(tokenizer("Answer:")["input_ids"]) == 1
    ours, theirs = BranchingLM(model, tokenizer, 100), HFLM(model, tokenizer=tokenizer, logits_cache=False)
    sound = text_requests([("Answer:", " no")])
    assert_same(ours.loglikelihood(sound, True), theirs.loglikelihood(sound, True))
    for pair in [("Answer:", " yes"), ("Answer:", ""), ("", "")]:
        (request,) = text_requests([pair])
        request.task_name, request.doc_id = "boolq", 7
        with pytest.raises((AssertionError, IndexError)):
            theirs.loglikelihood([request], True)
        with pytest.raises(
            UserError, match=f"^task boolq, question 7: the answer '{pair[1]}' has no tokens of its own"
        ):
            ours.loglikelihood([request])


def generation_requests() -> list[Instance]:
    settings = {"until": [" wall"], "max_gen_toks": 6, "do_sample": False}
    return text_requests([("the tree", settings), ("a wall by pruning", settings)], "generate_until")


@pytest.mark.parametrize("single", ["$A <end>", "<end> $A <end>"])
def test_an_end_that_the_tokenizer_appends_is_no_part_of_a_prompt_or_an_answer(single):
    """HFLM scores it: its answers lose their first token and gain the end."""
    pairs = [("the tree", " grows flat"), ("the tree", " grows"), ("a wall", " by pruning every branch"), ("", "year")]
    model, ends = tiny_model(), wrapped(tiny_tokenizer(), single)
    without = wrapped(tiny_tokenizer(), single.removesuffix(" <end>"))
    ours, theirs = BranchingLM(model, ends, 100), HFLM(model, tokenizer=without, logits_cache=False)
    assert ours._encode_pair(*pairs[0]) == theirs._encode_pair(*pairs[0])
    assert_same(ours.loglikelihood(text_requests(pairs), True), theirs.loglikelihood(text_requests(pairs), True))
    rolling = text_requests([("the tree grows flat against a wall",)], "loglikelihood_rolling")
    assert ours.loglikelihood_rolling(rolling, True) == pytest.approx(theirs.loglikelihood_rolling(rolling, True))
    assert ours.generate_until(generation_requests(), True) == theirs.generate_until(generation_requests(), True)
    assert ends("the tree")["input_ids"][-1] == 0, "the tokenizer itself is as it was"


def test_generation_without_an_eos_ends_at_the_stop_strings_and_the_limit():
    model = tiny_model()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    ours = BranchingLM(model, tokenizer_without_bos_and_eos(), 100)
    written = ours.generate_until(generation_requests(), True)
    assert written == stock(model).generate_until(generation_requests(), True)
    assert all(written)
