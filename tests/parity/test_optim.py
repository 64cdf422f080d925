"""Optimizers over flat ranges against torch.optim, or the papers where torch has none."""
import os
import pathlib
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

PROBE = pathlib.Path(os.environ.get("TRIREME_BUILD", "build")) / "tests" / "diffusion_probe"
STEPS = 50
SHAPES = {"conv": (6, 5, 3, 3), "dense": (17, 31), "bias": (37,), "zero": (12,), "scalar": (1,)}
EMA = 0.9


def problem(steps=STEPS):
    """Parameters, gradients that depend on nothing but the step, rates and clipping factors."""
    generator = torch.Generator().manual_seed(11)
    params = {k: torch.randn(v, generator=generator) * 0.3 for k, v in SHAPES.items()}
    params["zero"].zero_()
    grads = [{k: torch.randn(v, generator=generator) * (0.1 + (s % 5)) for k, v in SHAPES.items()}
             for s in range(steps)]
    rates = [0.02 * (1 + s) / steps for s in range(steps)]
    scales = [1.0 if s % 3 else 0.37 for s in range(steps)]
    return params, grads, rates, scales


def run_probe(folder, data, name, beta1=0.9, beta2=0.999, momentum=0.0, nesterov=0, eps=1e-8, weight_decay=0.0,
              tensor_ops=0, groups=None):
    params, grads, rates, scales = data
    tensors = {f"p/{k}": v for k, v in params.items()}
    for step, row in enumerate(grads, 1):
        tensors.update({f"g/{step}/{k}": v for k, v in row.items()})
    tensors["rates"] = torch.tensor(rates, dtype=torch.float64)
    tensors["scales"] = torch.tensor(scales, dtype=torch.float32)
    save_file(tensors, folder / "in.safetensors")
    options = dict(name=name, beta1=beta1, beta2=beta2, momentum=momentum, nesterov=nesterov, eps=eps,
                   weight_decay=weight_decay, tensor_ops=tensor_ops, ema=EMA)
    for key, (lr, decay) in (groups or {}).items():
        options |= {f"lr_multiplier/{key}": lr, f"decay_multiplier/{key}": decay}
    subprocess.run([PROBE, "optimize", folder / "in.safetensors", folder / "out.safetensors"]
                   + [f"{k}={v}" for k, v in options.items()], check=True, timeout=100)
    return load_file(folder / "out.safetensors")


def run_torch(data, make, groups=None):
    params, grads, rates, scales = data
    params = {k: torch.nn.Parameter(v.clone()) for k, v in params.items()}
    optimizer = make([{"params": [p], "name": k} for k, p in params.items()])
    multipliers = [(groups or {}).get(group["name"], (1.0, 1.0)) for group in optimizer.param_groups]
    for group, (_, decay) in zip(optimizer.param_groups, multipliers):
        group["weight_decay"] *= decay
    for row, rate, scale in zip(grads, rates, scales):
        for group, (lr, _) in zip(optimizer.param_groups, multipliers):
            group["lr"] = rate * lr
        for k, p in params.items():
            p.grad = row[k] * scale
        optimizer.step()
    return params, {k: optimizer.state[p] for k, p in params.items()}


def assert_near(ours, theirs, what):
    error = (ours - theirs.detach()).abs().max().item()
    assert error <= 1e-6 * max(1.0, theirs.detach().abs().max().item()), f"{what}: {error}"


CASES = [
    ("adamw", dict(weight_decay=0.1), lambda p: torch.optim.AdamW(p, weight_decay=0.1, foreach=False)),
    ("adamw", dict(weight_decay=0.0, beta1=0.8, beta2=0.95, eps=1e-5),
     lambda p: torch.optim.AdamW(p, betas=(0.8, 0.95), eps=1e-5, weight_decay=0, foreach=False)),
    ("adam", dict(weight_decay=0.05), lambda p: torch.optim.Adam(p, weight_decay=0.05, foreach=False)),
    ("sgd", dict(weight_decay=0.03), lambda p: torch.optim.SGD(p, weight_decay=0.03, foreach=False)),
    ("sgd", dict(momentum=0.9, weight_decay=0.03),
     lambda p: torch.optim.SGD(p, momentum=0.9, weight_decay=0.03, foreach=False)),
    ("sgd", dict(momentum=0.8, nesterov=1),
     lambda p: torch.optim.SGD(p, momentum=0.8, nesterov=True, foreach=False)),
]


@pytest.mark.parametrize("tensor_ops", [0, 1])
@pytest.mark.parametrize("name,options,make", CASES)
def test_trajectory_of_torch(tmp_path, name, options, make, tensor_ops):
    data = problem()
    ours = run_probe(tmp_path, data, name, tensor_ops=tensor_ops, **options)
    theirs, state = run_torch(data, make)
    for key, value in theirs.items():
        assert_near(ours[f"p/{key}"], value, key)
        for slot in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
            if state[key].get(slot) is not None:
                assert_near(ours[f"s/{slot}/{key}"], state[key][slot], f"{slot}/{key}")


def test_adafactor_of_torch(tmp_path):
    data = problem()
    ours = run_probe(tmp_path, data, "adafactor", weight_decay=0.02)
    theirs, state = run_torch(data, lambda p: torch.optim.Adafactor(p, weight_decay=0.02, foreach=False))
    for key, value in theirs.items():
        assert_near(ours[f"p/{key}"], value, key)
        for slot in ("row_var", "col_var", "variance"):
            if state[key].get(slot) is not None:
                assert_near(ours[f"s/{slot}/{key}"], state[key][slot], f"{slot}/{key}")


# No decay on the bias, a slow convolution, a fast and weakly decaying scalar: (rate, decay) multipliers.
GROUPS = {"bias": (1.0, 0.0), "conv": (0.3, 1.0), "scalar": (2.5, 0.5)}


@pytest.mark.parametrize("tensor_ops", [0, 1])
@pytest.mark.parametrize("name,options,make", [case for case in CASES if case[1].get("weight_decay")])
def test_groups_of_torch(tmp_path, name, options, make, tensor_ops):
    data = problem()
    ours = run_probe(tmp_path, data, name, tensor_ops=tensor_ops, groups=GROUPS, **options)
    for key, value in run_torch(data, make, GROUPS)[0].items():
        assert_near(ours[f"p/{key}"], value, key)


def test_groups_of_adafactor(tmp_path):
    data = problem()
    ours = run_probe(tmp_path, data, "adafactor", weight_decay=0.02, groups=GROUPS)
    theirs, _ = run_torch(data, lambda p: torch.optim.Adafactor(p, weight_decay=0.02, foreach=False), GROUPS)
    for key, value in theirs.items():
        assert_near(ours[f"p/{key}"], value, key)


def run_by_hand(data, update, groups=None):
    """`update` by the paper, with decay 0.1, in double precision."""
    params, grads, rates, scales = data
    params = {k: v.double() for k, v in params.items()}
    state = {k: {} for k in params}
    for step, (row, rate, scale) in enumerate(zip(grads, rates, scales), 1):
        for k in params:
            lr, decay = (groups or {}).get(k, (1.0, 1.0))
            params[k] = update(params[k], (row[k] * scale).double(), state[k], step, rate * lr, 0.1 * decay)
    return params


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("tensor_ops", [0, 1])
def test_lion_of_the_paper(tmp_path, tensor_ops, groups):
    def update(p, g, state, step, lr, decay):
        m = state.get("m", torch.zeros_like(p))
        state["m"] = 0.98 * m + 0.02 * g
        return p - lr * ((0.9 * m + 0.1 * g).sign() + decay * p)

    data = problem()
    ours = run_probe(tmp_path, data, "lion", beta2=0.98, weight_decay=0.1, tensor_ops=tensor_ops, groups=groups)
    for key, value in run_by_hand(data, update, groups).items():
        assert_near(ours[f"p/{key}"], value, key)


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_lamb_of_the_paper(tmp_path, groups):
    def update(p, g, state, step, lr, decay):
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
        r = (state["m"] / (1 - 0.9**step)) / ((state["v"] / (1 - 0.999**step)).sqrt() + 1e-6) + decay * p
        ratio = p.norm() / r.norm() if p.norm() > 0 and r.norm() > 0 else 1.0
        return p - lr * ratio * r

    data = problem()
    ours = run_probe(tmp_path, data, "lamb", eps=1e-6, weight_decay=0.1, groups=groups)
    for key, value in run_by_hand(data, update, groups).items():
        assert_near(ours[f"p/{key}"], value, key)


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("nesterov", [0, 1])
def test_lars_of_the_paper(tmp_path, nesterov, groups):
    def update(p, g, state, step, lr, decay):
        trust = 0.001 * p.norm() / (g.norm() + decay * p.norm()) if p.norm() > 0 and g.norm() > 0 else 1.0
        g = trust * (g + decay * p)
        state["b"] = 0.9 * state.get("b", 0) + g
        return p - lr * (g + 0.9 * state["b"] if nesterov else state["b"])

    data = problem()
    ours = run_probe(tmp_path, data, "lars", momentum=0.9, weight_decay=0.1, nesterov=nesterov, groups=groups)
    for key, value in run_by_hand(data, update, groups).items():
        assert_near(ours[f"p/{key}"], value, key)


def test_average_and_norm(tmp_path):
    data = problem()
    ours = run_probe(tmp_path, data, "sgd")
    params, grads, rates, scales = data
    params = {k: v.double() for k, v in params.items()}
    average = dict(params)
    for step, (row, rate, scale) in enumerate(zip(grads, rates, scales), 1):
        d = min(EMA, (1 + step) / (10 + step))
        params = {k: p - rate * scale * row[k].double() for k, p in params.items()}
        average = {k: d * average[k] + (1 - d) * params[k] for k in params}
    for key, value in average.items():
        assert_near(ours[f"ema/{key}"], value, key)
    expected = sum(v.double().square().sum().item() for v in grads[-1].values())
    assert abs(ours["sum_of_squares"].item() - expected) <= 1e-12 * expected


def schedule_of_transformers(name, warmup, steps, **more):
    """transformers' multipliers; its step k is our step k + 1, and its warm-up begins at 0 instead of 1 / warmup."""
    from transformers import optimization

    make = {"linear": optimization.get_linear_schedule_with_warmup,
            "cosine": optimization.get_cosine_schedule_with_warmup,
            "polynomial": optimization.get_polynomial_decay_schedule_with_warmup,
            "cosine_with_restarts": optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
            "inverse_sqrt": optimization.get_inverse_sqrt_schedule}[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = {} if name == "inverse_sqrt" else {"num_training_steps": steps}
    return make(optimizer, num_warmup_steps=warmup, **steps, **more).lr_lambdas[0]


@pytest.mark.parametrize("warmup", [0, 10])
@pytest.mark.parametrize("name,ours,theirs", [
    ("linear", {}, {}), ("cosine", {}, {}), ("polynomial", dict(power=2.5), dict(power=2.5, lr_end=0.0)),
    ("cosine_with_restarts", dict(cycles=3), dict(num_cycles=3)), ("inverse_sqrt", {}, {}),
    ("inverse_sqrt", dict(timescale=40), dict(timescale=40))])
def test_schedules_of_transformers(tmp_path, name, ours, theirs, warmup):
    steps = 97
    save_file({"unused": torch.zeros(1)}, tmp_path / "in.safetensors")
    subprocess.run([PROBE, "rates", tmp_path / "in.safetensors", tmp_path / "out.safetensors", f"name={name}",
                    f"warmup={warmup}", f"steps={steps}"] + [f"{k}={v}" for k, v in ours.items()], check=True)
    rates = load_file(tmp_path / "out.safetensors")["rates"].tolist()
    multiple = schedule_of_transformers(name, warmup, steps, **theirs)
    for u in range(warmup, steps):
        assert abs(rates[u] - multiple(u)) <= 1e-12, u
    for u in range(warmup):
        assert abs(rates[u] - multiple(u + 1)) <= 1e-12, u
