"""pytorch-fid and torch-fidelity without torchvision, and Inception-v3 with random weights for both."""

import sys
import types
from unittest import mock

import torch


def import_without_torchvision():
    """Both packages import torchvision; what is used of it here are the blocks that torch-fidelity also has. The stub
    is gone afterwards: transformers looks for the real one."""
    if "pytorch_fid.fid_score" in sys.modules:
        return
    names = ("torchvision", "torchvision.models", "torchvision.models.inception", "torchvision.datasets",
             "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: types.ModuleType(name) for name in names}
    for name, module in modules.items():
        if "." in name:
            parent, leaf = name.rsplit(".", 1)
            setattr(modules[parent], leaf, module)
    modules["torchvision"].__version__ = "0.20.0"
    for name in ("CIFAR10", "STL10", "CIFAR100"):
        setattr(modules["torchvision.datasets"], name, object)
    sys.modules.update(modules)
    import torch_fidelity.feature_extractor_inceptionv3 as blocks

    inception = modules["torchvision.models.inception"]
    inception.InceptionA, inception.InceptionC = blocks.InceptionA, blocks.InceptionC
    inception.InceptionE = blocks.InceptionE_1
    modules["torchvision.models"].inception_v3 = lambda **_: torch_fidelity_inception(None)
    import pytorch_fid.fid_score  # noqa: F401

    for name in names:
        del sys.modules[name]


def torch_fidelity_inception(weights, features="2048"):
    """torch-fidelity's network with a state dict, or with the parameters of construction."""
    import_without_torchvision()
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with mock.patch.object(module, "load_state_dict_from_url", lambda *_, **__: weights), \
            mock.patch.object(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None):
        network = module.FeatureExtractorInceptionV3("inception", [features])
    if weights is not None:
        network.load_state_dict(weights)
    return network.eval()


def pytorch_fid_inception(weights):
    """pytorch-fid's network with a state dict under the names of its published weights."""
    import_without_torchvision()
    from pytorch_fid import inception

    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        return inception.InceptionV3([3]).eval()


def random_inception_weights(seed=0):
    """Weights that keep activations alive through all layers, with batch statistics that matter."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in torch_fidelity_inception(None).state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights[name] = tensor
        elif name.endswith("conv.weight"):
            fan_in = tensor[0].numel()
            weights[name] = torch.randn(tensor.shape, generator=generator) * (2.0 / fan_in) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            weights[name] = 0.75 + 0.5 * torch.rand(tensor.shape, generator=generator)
        else:
            weights[name] = 0.1 * torch.randn(tensor.shape, generator=generator)
    return weights
