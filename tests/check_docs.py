#!/usr/bin/env python3
"""Checks that the documentation holds together: docs/README.md links every page, every link leads
somewhere, and every path of the source tree that a page names exists."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)#\s]+)\)")
PATH = re.compile(r"`((?:bench|configs|core|data|demo|dist|docs|launcher|report|slurm|study|tests|tools|trainer)/[\w./-]+)`")


def main():
    errors = []
    pages = sorted((ROOT / "docs").glob("*.md"))
    linked = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    errors += [f"docs/README.md does not link {page.name}" for page in pages
               if page.name not in linked | {"README.md"}]
    for page in [*pages, ROOT / "README.md", ROOT / "ARCHITECTURE.md"]:
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT)
        errors += [f"{name}: {link} leads nowhere" for link in LINK.findall(text)
                   if "://" not in link and not (page.parent / link).exists()]
        errors += [f"{name}: there is no {path}" for path in PATH.findall(text) if not (ROOT / path).exists()]
    print("\n".join(errors))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
