#!/usr/bin/env python3
"""Checks the shape of the source tree.

1. A folder includes only from folders that stand above it in ARCHITECTURE.md's order.
2. ARCHITECTURE.md lists every folder that holds sources, and none that does not exist.
3. Public headers keep mpi.h, nccl.h, hdf5.h, spdlog and toml++ out, and only .cc files under
   trainer/ see <torch/torch.h>.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Lowest first. What trainer/ itself and its evaluate/ hold is one library.
ORDER = ["core", "report", "dist", "data", "trainer/models", "trainer/adapters", "trainer/diffusion",
         "trainer/optim", "trainer/reduce", "trainer/checkpoint", "trainer/evaluate", "trainer",
         "study", "bench", "launcher"]
# What the order does not say: data/ takes rank and world size as numbers; the trainer evaluates.
FORBIDDEN = {("data", "dist"), ("trainer/models", "dist"), ("trainer/diffusion", "dist"),
             ("trainer/optim", "dist"), ("dist", "report"), ("data", "report")}
ALLOWED = {("trainer/evaluate", "trainer")}
# Every part of the trainer takes its options from the first and LibTorch from the second.
FREE = {"trainer/config.h", "trainer/torch_api.h"}
WALLED = re.compile(r'^\s*#\s*include\s*[<"](mpi\.h|nccl\.h|hdf5\.h|spdlog/|toml\+\+|toml\.hpp)', re.M)
TORCH = re.compile(r'^\s*#\s*include\s*<(torch/torch\.h|torch/nn)', re.M)
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)


def folder_of(path):
    """The folder of ORDER that `path` (relative to the root) lies in, or None."""
    parts = pathlib.PurePosixPath(path).parts
    for depth in (2, 1):
        folder = "/".join(parts[:depth])
        if len(parts) > depth and folder in ORDER:
            return folder
    return None


def may_include(user, used):
    if user == used:
        return True
    if (user, used) in FORBIDDEN:
        return False
    if (user, used) in ALLOWED:
        return True
    return ORDER.index(used) < ORDER.index(user)


def check_includes(errors):
    for folder in ORDER:
        for file in sorted((ROOT / folder).glob("*")):
            if file.suffix not in (".h", ".cc", ".cu"):
                continue
            name = file.relative_to(ROOT).as_posix()
            text = file.read_text(encoding="utf-8")
            for included in INCLUDE.findall(text):
                used = folder_of(included)
                if used is None:
                    errors.append(f'{name}: "{included}" is not a path from the repository\'s root')
                elif not (ROOT / included).exists():
                    errors.append(f'{name}: "{included}" does not exist')
                elif included in FREE and folder.startswith("trainer"):
                    continue
                elif not may_include(folder, used):
                    errors.append(f"{name}: {folder}/ may not include {included}")
            if name not in FREE and TORCH.search(text) and (
                    file.suffix == ".h" or not folder.startswith(("trainer", "bench"))):
                errors.append(f"{name}: only .cc files under trainer/ include {TORCH.search(text).group(1)}")
            if file.suffix == ".h" and WALLED.search(text) and not file.name.endswith("_handles.h"):
                errors.append(f"{name}: a public header includes {WALLED.search(text).group(1)}")


def check_architecture(errors):
    document = ROOT / "ARCHITECTURE.md"
    if not document.exists():
        errors.append("ARCHITECTURE.md does not exist")
        return
    text = document.read_text(encoding="utf-8")
    section = re.search(r"^## Folders.*?$(.*?)(?=^## |\Z)", text, re.M | re.S)
    listed = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*)/`", section.group(1))) if section else set()
    present = {f for f in ORDER if any((ROOT / f).glob("*.cc"))}
    present |= {p.name for p in ROOT.iterdir()
                if p.is_dir() and p.name in ("bench", "cmake", "configs", "demo", "docs", "slurm", "tests",
                                             "tools")}
    for folder in sorted(present - listed):
        errors.append(f"ARCHITECTURE.md, section Folders, does not list `{folder}/`")
    for folder in sorted(listed):
        if not (ROOT / folder).is_dir() and not (ROOT / "tests" / folder).is_dir():
            errors.append(f"ARCHITECTURE.md lists {folder}/, which does not exist")


def main():
    errors = []
    check_includes(errors)
    check_architecture(errors)
    for error in errors:
        print(error)
    print(f"{len(errors)} errors in the folders' structure" if errors else "the folders are in order")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
