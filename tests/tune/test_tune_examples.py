import pandas as pd
import pytest
import torch
from helpers import CHATML, chat_tokenizer, wrapped
from tune_helpers import tiny_tokenizer, tune_params

from stages.common.errors import UserError
from stages.tune.data import template
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
    (example,) = instruction_examples(
        rows(("Say it.", "twice", "the thé ∑ end")), tokenizer, window=1000, template="alpaca"
    )
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
    (example,) = instruction_examples(rows(("a", "", "the")), tokenizer, window=1000, template="alpaca")
    assert example.tokens[0] == 0
    assert example.labels[0] == IGNORE
    assert tokenizer.decode(learnt(example)) == "the<end>"


def test_a_tokenizer_that_adds_an_end_of_text_ends_an_answer_once():
    tokenizer = wrapped(tiny_tokenizer(), "<end> $A <end>")
    (example,) = instruction_examples(rows(("a", "", "the")), tokenizer, window=1000, template="alpaca")
    assert tokenizer.decode(learnt(example)) == "the<end>"
    assert (example.tokens == 0).nonzero().flatten().tolist() == [0, len(example.tokens) - 1]


def test_a_chat_template_lays_a_question_and_its_answer_out():
    tokenizer = chat_tokenizer()
    data = rows(("Say it.", "twice", "the thé"), ("Say", "", "a\n"))
    examples = instruction_examples(data, tokenizer, window=1000, template="chat")
    text = "<s>system\nBe brief<|im_end|>\n<|im_start|>user\nSay it.\n\ntwice<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(examples[0].tokens) == text + "the thé<|im_end|>"
    assert tokenizer.decode(learnt(examples[0])) == "the thé<|im_end|>"
    assert tokenizer.decode(learnt(examples[1])) == "a\n<|im_end|>"
    for example in examples:  # the template's own BOS, and none of the tokenizer's
        assert (example.tokens == tokenizer.bos_token_id).sum() == 1
        assert (example.labels == tokenizer.eos_token_id).sum() == 1
        assert example.labels[-1] == tokenizer.eos_token_id


def test_a_chat_template_without_the_end_of_text_gets_one():
    tokenizer = chat_tokenizer("{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
                               "{% if add_generation_prompt %}[assistant]{% endif %}")  # fmt: skip
    (example,) = instruction_examples(rows(("q", "", "the")), tokenizer, window=1000, template="chat")
    assert tokenizer.decode(example.tokens) == "[user]q\n[assistant]the<|im_end|>"
    assert tokenizer.decode(learnt(example)) == "the<|im_end|>"


def test_an_end_of_text_inside_an_answer_does_not_cut_it():
    (example,) = instruction_examples(rows(("q", "", "a<|im_end|>b")), chat_tokenizer(), window=1000, template="chat")
    assert chat_tokenizer().decode(learnt(example)) == "a<|im_end|>b<|im_end|>"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{ raise_exception('no such role') }}", "the tokenizer's chat template fails: no such role"),
        (
            "{% if add_generation_prompt %}x{% endif %}{{ messages[-1].content }}",
            "tune.template = 'chat': the chat template does not put an answer after",
        ),
    ],
)
def test_a_chat_template_that_does_not_serve_is_one_line(text, line):
    with pytest.raises(UserError, match=line.split(":")[0]) as caught:
        instruction_examples(rows(("q", "", "a")), chat_tokenizer(text), window=1000, template="chat")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auto_is_the_chat_template_where_there_is_one():
    with_one, without = chat_tokenizer(CHATML), tiny_tokenizer()
    assert template(tune_params(template="auto"), with_one) == "chat"
    assert template(tune_params(template="auto"), without) == "alpaca"
    assert template(tune_params(template="alpaca"), with_one) == "alpaca"
    assert template(tune_params(template="chat"), with_one) == "chat"
    with pytest.raises(UserError, match=r"tune.template = 'chat': .* has no chat template; set it to alpaca"):
        template(tune_params(template="chat"), without)


def test_a_long_instruction_is_cut_and_one_that_is_all_prompt_left_out():
    tokenizer = tiny_tokenizer()
    prompt = len(tokenizer(alpaca_prompt("a", ""))["input_ids"])
    data = rows(("a", "", "xyz" * 50), ("b" * 500, "", "y"), ("c", "", "z"))
    examples = instruction_examples(data, tokenizer, window=prompt + 5, template="alpaca")
    assert [len(example.tokens) for example in examples] == [prompt + 5, prompt + 2]
    assert tokenizer.decode(learnt(examples[0])) == "xyzxy"
    assert instruction_examples(data, tokenizer, window=prompt, template="alpaca") == []
    assert instruction_examples(data[:0], tokenizer, window=1000, template="alpaca") == []


def test_a_tokenizer_without_an_end_of_text():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    (example,) = instruction_examples(rows(("a", "", "the")), tokenizer, window=1000, template="alpaca")
    assert tokenizer.decode(learnt(example)) == "the"


def test_text_is_windows_of_the_joined_documents_and_all_learnt():
    tokenizer = tiny_tokenizer()
    examples = text_examples(["the cat", "another one"], tokenizer, window=4)
    stream = tokenizer("the cat\n\nanother one")["input_ids"]
    assert torch.cat([example.tokens for example in examples]).tolist() == stream[: len(stream) // 4 * 4]
    assert all(torch.equal(*example) and len(example.tokens) == 4 for example in examples)
    assert loss_tokens(examples[0]) == 3
