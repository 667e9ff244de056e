"""A model of 0.1 M parameters, a task it can learn in minutes, and the overrides that run both on a
CPU.

Invariants:
* The tokenizer's vocabulary and the model's are equal: verl masks the difference in vLLM only,
  which would show as a gap between the rollout's and the trainer's log-probs.
* Every run starts from the same weights.
"""

import string
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TARGET = "a"
RESPONSE_LENGTH = 16
_SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>"]
# Byte-level BPE without merges; a newline and a space are written as that scheme writes them.
_CHARACTERS = ["\u010a", "\u0120", *string.ascii_lowercase, *string.digits, *".,:;!?+-*/=()"]
# ChatML, which verl's token builder for Qwen models expects.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "
    "endif %}"
)


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a tiny model.

    Attributes:
        heads: of attention; as many for keys and values.
        head_size: vLLM and SGLang on GPUs have kernels for 64.
        vocabulary_divisor: the vocabulary is filled up to a multiple of it.
    """

    layers: int = 2
    heads: int = 2
    head_size: int = 32
    vocabulary_divisor: int = 1


DEFAULT_SIZES = ModelSizes()


def write_model(directory: Path, sizes: ModelSizes = DEFAULT_SIZES) -> Path:
    """Write a randomly initialised Qwen2 and a character tokenizer in Hugging Face format.

    Returns:
        ``directory``.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    unused = [
        f"<unused{number}>"
        for number in range(-len(_SPECIAL + _CHARACTERS) % sizes.vocabulary_divisor)
    ]
    tokens = [*_SPECIAL, *_CHARACTERS, *unused]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token=None,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", *unused],
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=sizes.heads * sizes.head_size,
        intermediate_size=2 * sizes.heads * sizes.head_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        eos_token_id=vocabulary["<|im_end|>"],
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=None,
    )
    directory.mkdir(parents=True, exist_ok=True)
    Qwen2ForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def decode(tokens: list[int]) -> str:
    """The text of token ids, as the tokenizer has it without special tokens."""
    first = len(_SPECIAL)
    characters = [
        _CHARACTERS[token - first] for token in tokens if first <= token < first + len(_CHARACTERS)
    ]
    return "".join(characters).replace("\u010a", "\n").replace("\u0120", " ")


def make_prompt(row: int) -> str:
    """The prompt of a row of the data."""
    return f"row {row}: write {TARGET}"


def write_data(path: Path, rows: int) -> Path:
    """Write ``rows`` different prompts in verl's schema; the rewarded answer is :data:`TARGET`
    over and over.
    """
    prompts = [make_prompt(row) for row in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(
            [
                {
                    "data_source": "tiny",
                    "prompt": [{"role": "user", "content": prompt}],
                    "ability": "tiny",
                    "reward_model": {"style": "rule", "ground_truth": TARGET},
                    "extra_info": {"index": index},
                }
                for index, prompt in enumerate(prompts)
            ]
        ),
        path,
    )
    return path


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_kwargs) -> float:
    """Dense reward: share of :data:`RESPONSE_LENGTH` characters that are the target."""
    return min(solution_str.count(ground_truth), RESPONSE_LENGTH) / RESPONSE_LENGTH


def compute_text_score(
    data_source, solution_str, ground_truth, extra_info=None, **_kwargs
) -> float:
    """A reward that differs between nearly all responses, so that every group has a gradient."""
    return zlib.crc32(solution_str.encode()) % 1000 / 1000


def make_overrides(directory: Path, *, rows: int = 22, batch: int = 4, n: int = 4) -> list[str]:
    """Return the overrides of a short GRPO run; write its model and data below ``directory`` once.

    The run is in fp32, as the CPU overlay has it, and writes below ``directory/run``.
    """
    model = directory / "model"
    if not (model / "config.json").is_file():
        write_model(model)
    train, held_out = directory / f"train-{rows}.parquet", directory / "val.parquet"
    if not train.is_file():
        write_data(train, rows)
    if not held_out.is_file():
        write_data(held_out, 4)
    return [
        "+verl_pipeline=cpu",
        f"data.train_files={train}",
        f"data.val_files={held_out}",
        f"data.train_batch_size={batch}",
        "data.max_prompt_length=64",
        f"data.max_response_length={RESPONSE_LENGTH}",
        "data.dataloader_num_workers=0",
        "data.seed=7",
        f"actor_rollout_ref.model.path={model}",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        "actor_rollout_ref.actor.optim.lr=5e-3",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={batch}",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.actor.fsdp_config.model_dtype=fp32",
        f"actor_rollout_ref.rollout.n={n}",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
        "actor_rollout_ref.rollout.max_num_seqs=64",
        "actor_rollout_ref.rollout.max_model_len=128",
        "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=16",
        "algorithm.adv_estimator=grpo",
        "reward.custom_reward_function.path=pkg://verl_pipeline.testing.tiny_run",
        "reward.custom_reward_function.name=compute_score",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        "trainer.total_epochs=100",
        "trainer.resume_mode=disable",
        f"trainer.default_local_dir={directory / 'run'}",
    ]
