import pandas as pd
import torch
from tune_helpers import tiny_tokenizer

from stages.tune.examples import IGNORE, Example, alpaca_prompt, instruction_examples, loss_tokens, text_examples


def rows(*triples) -> pd.DataFrame:
    return pd.DataFrame(triples, columns=["instruction", "input", "output"])


def learnt(example: Example) -> list[int]:
    return example.labels[example.labels != IGNORE].tolist()


def test_the_prompts_are_stanford_alpacas():
    assert alpaca_prompt("Add.", "1, 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n"
        "### Response:\n"
    )
    assert alpaca_prompt("Add.", "") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Response:\n"
    )


def test_a_null_input_is_no_input():
    assert alpaca_prompt("Add.", None) == alpaca_prompt("Add.", float("nan")) == alpaca_prompt("Add.", "")  # type: ignore[arg-type]


def test_braces_in_the_data_are_left_as_they_are():
    assert "### Instruction:\n{input} {0}\n" in alpaca_prompt("{input} {0}", "{instruction}")


def test_only_the_output_and_the_end_of_text_are_learnt():
    tokenizer = tiny_tokenizer()
    (example,) = instruction_examples(rows(("Say it.", "twice", "the thé ∑ end")), tokenizer, window=1000)
    prompt = tokenizer(alpaca_prompt("Say it.", "twice"))["input_ids"]
    output = tokenizer("the thé ∑ end")["input_ids"]
    assert example.tokens.tolist() == [*prompt, *output, tokenizer.eos_token_id]
    assert learnt(example) == [*output, tokenizer.eos_token_id]
    assert (example.labels[: len(prompt)] == IGNORE).all()
    assert loss_tokens(example) == len(output) + 1


def test_special_tokens_of_the_tokenizer_are_not_learnt():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
    (example,) = instruction_examples(rows(("a", "", "the")), tokenizer, window=1000)
    assert example.tokens[0] == 0
    assert example.labels[0] == IGNORE
    assert tokenizer.decode(learnt(example)) == "the<end>"


def test_a_long_instruction_is_cut_and_one_that_is_all_prompt_left_out():
    tokenizer = tiny_tokenizer()
    prompt = len(tokenizer(alpaca_prompt("a", ""))["input_ids"])
    data = rows(("a", "", "xyz" * 50), ("b" * 500, "", "y"), ("c", "", "z"))
    examples = instruction_examples(data, tokenizer, window=prompt + 5)
    assert [len(example.tokens) for example in examples] == [prompt + 5, prompt + 2]
    assert tokenizer.decode(learnt(examples[0])) == "xyzxy"
    assert instruction_examples(data, tokenizer, window=prompt) == []
    assert instruction_examples(data[:0], tokenizer, window=1000) == []


def test_a_tokenizer_without_an_end_of_text():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    (example,) = instruction_examples(rows(("a", "", "the")), tokenizer, window=1000)
    assert tokenizer.decode(learnt(example)) == "the"


def test_text_is_windows_of_the_joined_documents_and_all_learnt():
    tokenizer = tiny_tokenizer()
    examples = text_examples(["the cat", "another one"], tokenizer, window=4)
    stream = tokenizer("the cat\n\nanother one")["input_ids"]
    assert torch.cat([example.tokens for example in examples]).tolist() == stream[: len(stream) // 4 * 4]
    assert all(torch.equal(*example) and len(example.tokens) == 4 for example in examples)
    assert loss_tokens(examples[0]) == 3
