#!/usr/bin/env python3
"""Converts FID's Inception-v3 weights, as pytorch-fid and torch-fidelity publish them, for scores.inception.

usage: .venv/bin/python tools/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception.safetensors
"""
import sys

import torch
from safetensors.torch import save_file


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    weights = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, sys.argv[2],
              metadata={"source": "Inception-v3 of 2015-12-05 for FID"})


if __name__ == "__main__":
    main()
