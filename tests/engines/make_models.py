"""Makes two models that vLLM can load, beside DIRECTORY/SmolLM2-135M-Instruct.Q4_1.gguf. Run by install.sh.

    python make_models.py DIRECTORY

SmolLM2-135M-Instruct answers sensibly and slowly; it is the file's weights, dequantised to bfloat16. tiny-llama-random
answers nonsense: random weights behind the same tokenizer and chat template, some 150 tokens a second, and a context of
32,768 tokens, so that a request can be longer than any test waits. Both are whole or not there at all: each is made
under another name and renamed last.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# What the loader notes about the file itself; it would make vLLM take the new weights for quantised ones.
OF_THE_FILE = {"quantization_config", "dtype", "torch_dtype"}


def real(directory: Path) -> LlamaForCausalLM:
    """The model in the file, as plain bfloat16 weights."""
    loaded = AutoModelForCausalLM.from_pretrained(directory, gguf_file=GGUF, dtype=torch.float32)
    settings = {key: value for key, value in loaded.config.to_dict().items() if key not in OF_THE_FILE}
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict())
    model.generation_config.bos_token_id = model.config.bos_token_id
    model.generation_config.eos_token_id = model.config.eos_token_id
    return model.to(torch.bfloat16)


def tiny(like: LlamaConfig) -> LlamaForCausalLM:
    """Random weights, the same in every installation; the vocabulary is that of `like`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=like.vocab_size,
        bos_token_id=like.bos_token_id,
        eos_token_id=like.eos_token_id,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=16,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Write a model with its tokenizer to `folder`, which does not exist yet."""
    unfinished = folder.with_name(folder.name + ".part")
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)


def main(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=GGUF)
    model = real(directory)
    for folder, made in (("SmolLM2-135M-Instruct", model), ("tiny-llama-random", tiny(model.config))):
        if not (directory / folder).exists():
            save(made, tokenizer, directory / folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
