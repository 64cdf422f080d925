#pragma once
// The part of LibTorch that trireme uses, as the one precompiled header: <torch/torch.h> as a whole
// costs each translation unit three times as much.
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/utils.h>
