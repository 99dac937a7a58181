"""Make a deeper GPT-2 with a longer context from a trained one; its logits stay the same until it is trained on.

    python scripts/grow_model.py FOLDER NEW_FOLDER [--layers N] [--context T]

Copies of the layers are inserted, each after its layer, evenly, the first layers before the last ones where N is no multiple. The
two output projections of a copy are zero, so it adds nothing to the residual stream: a deeper network that begins as the
identity, as in arXiv:1511.05641. Position embeddings are repeated: positions T and T + n begin as position n (as in
Longformer, arXiv:2004.05150).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ZERO = ("attn.c_proj.weight", "attn.c_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")


def layer_sources(before: int, after: int) -> list[tuple[int, bool]]:
    """Returns, for each layer of the grown model, the layer it comes from and whether it is an added copy.

    Raises:
        ValueError: `after` is smaller than `before`.
    """
    if after < before:
        raise ValueError(f"a model of {before} layers does not grow to {after}")
    copies = [after // before - 1 + (layer < after % before) for layer in range(before)]
    return [(layer, copy > 0) for layer in range(before) for copy in range(copies[layer] + 1)]


def grow(weights: Mapping[str, torch.Tensor], before: int, layers: int, context: int) -> dict[str, torch.Tensor]:
    """Returns the weights of GPT-2 (Hugging Face names, without `transformer.`) with more layers and positions."""
    grown = {name: value for name, value in weights.items() if not name.startswith("h.")}
    for layer, (source, added) in enumerate(layer_sources(before, layers)):
        start = f"h.{source}."
        for name, value in weights.items():
            if name.startswith(start):
                rest = name.removeprefix(start)
                grown[f"h.{layer}.{rest}"] = torch.zeros_like(value) if added and rest in ZERO else value.clone()
    positions = weights["wpe.weight"]
    if context < len(positions):
        raise ValueError(f"a context of {len(positions)} tokens does not grow to {context}")
    times = -(-context // len(positions))
    grown["wpe.weight"] = positions.repeat(times, 1)[:context].contiguous()
    return grown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("new_folder", type=Path)
    parser.add_argument("--layers", type=int, help="default: twice as many")
    parser.add_argument("--context", type=int, help="default: twice as long")
    chosen = parser.parse_args(arguments)
    config = json.loads((chosen.folder / "config.json").read_text(encoding="utf-8"))
    before = config["n_layer"]
    layers, context = chosen.layers or 2 * before, chosen.context or 2 * config["n_positions"]
    if chosen.new_folder.exists():
        sys.exit(f"{chosen.new_folder} exists: name another folder")
    weights = {
        name.removeprefix("transformer."): value
        for name, value in load_file(chosen.folder / "model.safetensors").items()
    }
    try:
        grown = grow(weights, before, layers, context)
    except ValueError as error:
        sys.exit(str(error))
    part = chosen.new_folder.with_name(chosen.new_folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (chosen.folder / name).exists():
            shutil.copy(chosen.folder / name, part / name)
    config |= {"n_layer": layers, "n_positions": context, "n_ctx": context}
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(grown, part / "model.safetensors", metadata={"format": "pt"})
    part.rename(chosen.new_folder)


if __name__ == "__main__":
    main()
