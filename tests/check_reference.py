#!/usr/bin/env python3
"""Checks that docs/reference.md is what the program says.

usage: check_reference.py WRITE_REFERENCE
"""
import pathlib
import subprocess
import sys

FILE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "reference.md"


def main():
    reference = subprocess.run([sys.argv[1]], capture_output=True, text=True, check=True).stdout
    if FILE.exists() and reference == FILE.read_text(encoding="utf-8"):
        return 0
    print("docs/reference.md is not what the program says: cmake --build build --target reference")
    return 1


if __name__ == "__main__":
    sys.exit(main())
