"""base.source = train: a small Llama from scratch, on the train split."""

from pathlib import Path

import pandas as pd
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from stages.base.muon import Muon
from stages.base.params import BaseParams
from stages.base.tokenizer import train_tokenizer
from stages.common.errors import UserError
from stages.common.live import LiveCurves
from stages.common.training import Plan, Progress, train
from stages.common.windows import consecutive_windows, token_stream

TEXT = Path("data/text")
VALIDATE_EVERY = 100  # steps
LOSSES_EVERY = 10  # steps that a point of the training curve is the mean of
VALIDATION_WINDOWS = 96  # spread over the validation split, so that validating costs 2 % of the time


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase, Progress]:
    """Return a model trained as `params` says, its tokenizer and the progress; a killed run resumes from `state`.

    The model's first weights come from torch's global seed. Raises UserError for too little text or a loss that is not
    finite.
    """
    texts = {name: pd.read_parquet(TEXT / f"{name}.parquet")["text"].tolist() for name in ("train", "validation")}
    tokenizer = train_tokenizer(texts["train"], params.vocab_size)
    stream = document_stream(texts["train"], tokenizer)
    validation = validation_windows(token_stream(texts["validation"], tokenizer), params.window).to(device)
    model = new_model(params, tokenizer).to(device)  # type: ignore[arg-type] # transformers hides the signature

    def backward(step: int) -> float:
        loss = next_token_loss(model, batch(stream, params, step).to(device))
        loss.backward()
        return loss.item()

    def validate() -> float:
        with torch.no_grad():
            losses = [next_token_loss(model, part).item() * len(part) for part in validation.split(params.batch_size)]
        return sum(losses) / len(validation)

    plan = Plan(params.steps, params.warmup_steps, VALIDATE_EVERY, params.seed)
    optimizers = make_optimizers(model, params.learning_rate)
    parameters, curves = dict(model.named_parameters()), LiveCurves("base", LOSSES_EVERY)
    progress = train(parameters, optimizers, backward, validate, plan, state, "base", curves.update)
    return model.eval(), tokenizer, progress


def document_stream(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the documents' tokens as one int64 vector, the end-of-text token after each."""
    documents = tokenizer(texts, verbose=False)["input_ids"]
    return torch.tensor([token for document in documents for token in [*document, tokenizer.eos_token_id]])


def validation_windows(stream: torch.Tensor, window: int) -> torch.Tensor:
    """Return windows spread evenly over the stream, shape (at least VALIDATION_WINDOWS if there are, window)."""
    windows = consecutive_windows(stream, window)
    if len(windows) == 0:
        raise UserError(
            f"base.window = {window} is more than the validation text holds; expected up to {len(stream)} tokens"
        )
    return windows[:: max(1, len(windows) // VALIDATION_WINDOWS)]


def new_model(params: BaseParams, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Return a Llama of the params' shape with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=params.hidden_size,
        intermediate_size=params.intermediate_size,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.kv_heads,
        head_dim=params.hidden_size // params.heads,
        max_position_embeddings=max(1024, params.window),
        tie_word_embeddings=params.tie_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def make_optimizers(model: LlamaForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for embeddings, head and norms, at one peak rate."""
    inside = {id(weight) for weight in model.model.layers.parameters() if weight.ndim == 2}
    matrices = [weight for weight in model.parameters() if id(weight) in inside]
    others = [weight for weight in model.parameters() if id(weight) not in inside]
    adamw = torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    return [Muon(matrices, lr=learning_rate), adamw]


def next_token_loss(model: LlamaForCausalLM, windows: torch.Tensor) -> torch.Tensor:
    """Return the mean loss, in nats per predicted token, of windows (batch, window)."""
    return model(input_ids=windows, labels=windows, use_cache=False).loss


def batch(stream: torch.Tensor, params: BaseParams, step: int) -> torch.Tensor:
    """Return the windows of `step`, shape (batch_size, window): each epoch cuts the stream elsewhere and shuffles.

    Raises UserError if the text does not fill one batch.
    """
    windows = (len(stream) - params.window + 1) // params.window
    steps_per_epoch = windows // params.batch_size
    if steps_per_epoch == 0:
        raise UserError(
            f"base.batch_size = {params.batch_size} is more than the text holds: "
            f"{windows} windows of base.window = {params.window} tokens"
        )
    epoch, place = divmod(step, steps_per_epoch)
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + epoch)
    offset = torch.randint(params.window, (1,), generator=generator)
    order = torch.randperm(windows, generator=generator)[place * params.batch_size : (place + 1) * params.batch_size]
    return stream[(order * params.window + offset)[:, None] + torch.arange(params.window)]
