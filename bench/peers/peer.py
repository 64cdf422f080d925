"""The Python side of `trireme bench`: the same work by PyTorch, diffusers and h5py.

peer.py FOLDER --ranks N [--first-step]   reads names of cases from standard input, answers "BENCH seconds".
"""

import argparse
import json
import os
import sys
import time

STEPS_AT_ONCE = 3
LOADS = 2000


def answer(value):
    print(f"BENCH {value:.9g}", flush=True)


def time_of(repetitions, work):
    begin = time.perf_counter()
    for _ in range(repetitions):
        work()
    return (time.perf_counter() - begin) / repetitions


class Training:
    """A step as a careful user writes it: DDP, fused AdamW, clipping, noise and timesteps drawn ahead of it."""

    def __init__(self, folder, large, ranks):
        import h5py
        import torch
        from diffusers import DDPMScheduler, UNet2DConditionModel

        with open(os.path.join(folder, "large" if large else "unet", "config.json")) as f:
            config = json.load(f)
        torch.manual_seed(0)
        self.model = UNet2DConditionModel.from_config(config)
        self.network = torch.nn.parallel.DistributedDataParallel(self.model) if ranks > 1 else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        self.schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        self.batch = 1 if large else 8
        with h5py.File(os.path.join(folder, "large.h5" if large else "step.h5")) as f:
            self.latents = torch.from_numpy(f["latents"][:]).float()
            self.text = torch.from_numpy(f["text/prompt_embeds"][:]).float()
            index = f["caption_index"][:].reshape(len(self.latents), -1)[:, 0]
            self.caption = torch.from_numpy(index.astype("int64"))

    def step(self):
        import torch

        rows = torch.randint(0, len(self.latents), (self.batch,))
        latents = self.latents[rows]
        noise = torch.randn_like(latents)
        times = torch.randint(0, 1000, (self.batch,))
        noised = self.schedule.add_noise(latents, noise, times)
        prediction = self.network(noised, times, self.text[self.caption[rows]]).sample
        loss = torch.nn.functional.mse_loss(prediction, noise)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


def tensor_sizes():
    return [128 * 128 * 9 - 2048 if i % 7 == 0 else (128 if i % 2 == 0 else 192) for i in range(700)]


class Cases:
    def __init__(self, folder, rank, ranks):
        self.folder, self.rank, self.ranks = folder, rank, ranks
        self.ready = {}

    def measure(self, name):
        """Seconds; of a case after "alone/" on rank 0 only, while the others wait."""
        is_alone, name = name.startswith("alone/"), name.removeprefix("alone/")
        if name not in self.ready:
            kind, _, size = name.partition(":")
            self.ready[name] = getattr(self, kind)(*([int(size)] if size else []))
        if self.ranks > 1:
            import torch.distributed as dist
            dist.barrier()
        return self.ready[name]() if self.rank == 0 or not is_alone else None

    def training(self, large):
        training = Training(self.folder, large, self.ranks)
        training.step()
        return training

    def step(self):
        training = self.training(large=False)
        return lambda: time_of(STEPS_AT_ONCE, training.step)

    def large_step(self):
        training = self.training(large=True)
        return lambda: time_of(STEPS_AT_ONCE, training.step)

    def all_reduce(self, size):
        import torch
        import torch.distributed as dist

        values = torch.zeros(size // 4)
        repetitions = min(max((64 << 20) // size, 2), 2000)
        return lambda: time_of(repetitions, lambda: dist.all_reduce(values))

    def optimizer(self):
        import torch

        parameters = [torch.nn.Parameter(torch.randn(n)) for n in tensor_sizes()]
        for p in parameters:
            p.grad = torch.full_like(p, 1e-3)
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

        def update():
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        return lambda: time_of(5, update)

    def loader(self):
        import h5py
        import numpy as np

        latents = h5py.File(os.path.join(self.folder, "loader.h5"))["latents"]
        rows = iter(np.random.default_rng(0).integers(0, len(latents), 10_000_000))
        return lambda: time_of(LOADS, lambda: latents[next(rows)])

    def noise(self):
        import torch

        count = 1 << 22
        return lambda: time_of(1, lambda: torch.randn(count)) / count

    def checkpoint(self):
        import torch

        training = self.training(large=False)
        path = os.path.join(self.folder, "peer.pt")

        def save():
            if self.rank == 0:
                with open(path, "wb") as f:
                    torch.save({"model": training.model.state_dict(),
                                "optimizer": training.optimizer.state_dict()}, f)
                    f.flush()
                    os.fsync(f.fileno())
        return lambda: time_of(1, save)


def rank_main(rank, arguments, port):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if arguments.ranks > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        dist.init_process_group("gloo", rank=rank, world_size=arguments.ranks)
    if arguments.first_step:
        loss = Training(arguments.folder, False, arguments.ranks).step()
        if rank == 0:
            answer(loss)
    else:
        serve(rank, arguments)
    if arguments.ranks > 1:
        dist.destroy_process_group()  # Its threads would outlive the interpreter.


def serve(rank, arguments):
    import torch.distributed as dist

    cases = Cases(arguments.folder, rank, arguments.ranks)
    while True:
        name = [sys.stdin.readline().strip() if rank == 0 else None]
        if arguments.ranks > 1:
            dist.broadcast_object_list(name, src=0)
        if not name[0]:
            return
        seconds = cases.measure(name[0])
        if rank == 0:
            answer(seconds)


def child_main(rank, arguments, port):
    sys.stdin = open(os.devnull)
    rank_main(rank, arguments, port)


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    import multiprocessing

    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--first-step", action="store_true")
    arguments = parser.parse_args()
    port = free_port()
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=child_main, args=(r, arguments, port), daemon=True)
                for r in range(1, arguments.ranks)]
    for child in children:
        child.start()
    rank_main(0, arguments, port)
    for child in children:
        child.join(10)


if __name__ == "__main__":
    main()
