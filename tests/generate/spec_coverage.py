"""Prints docs/spec-coverage.md: python -m tests.generate.spec_coverage > docs/spec-coverage.md"""

from __future__ import annotations

from collections import Counter

from rootless_pyoki.spec import OCI_VERSION
from tests.coverage import fields
from tests.coverage.fields import Field

HEAD = f"""\
# What becomes of every field

Every field of `config.json` that runtime-spec {OCI_VERSION} knows: what this runtime does with it, and the
tests that show it. Made by `tests/generate/spec_coverage.py` from `tests/coverage/fields.txt`; a test
compares it with the JSON schema of the specification, with the tests that are there, and with the
table it was made from.

`*` stands for any index or name, `{{a,b}}` for one of several. What is refused names its JSON pointer
and the reason; `--unsupported=warn` and `--unsupported=ignore` leave out what protects nobody.
"""
CHAPTERS = (
    ("Top level", ("ociVersion", "hostname", "domainname", "annotations", "root")),
    ("Mounts", ("mounts",)),
    ("Process", ("process",)),
    ("Hooks", ("hooks",)),
    ("Linux", ("linux",)),
    ("Other platforms", fields.PLATFORMS),
)


def chapter_of(field: Field) -> str:
    top = field.patterns.split("/")[1]
    return next(title for title, members in CHAPTERS if top in members)


def line(field: Field) -> str:
    tests = ", ".join(f"`{test}`" for test in field.tests)
    return f"| `{field.patterns}` | {fields.STATES[field.state]} | {field.remark} | {tests} |"


def text() -> str:
    counts = Counter(f.state for f in fields.rows() for _ in f.expand())
    parts = [HEAD, "| State | Fields |\n|---|---|"]
    parts += [f"| {fields.STATES[state]} | {number} |" for state, number in counts.most_common()]
    for title, _ in CHAPTERS:
        parts.append(f"\n## {title}\n\n| Field | State | Remark | Tests |\n|---|---|---|---|")
        parts += [line(field) for field in fields.rows() if chapter_of(field) == title]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(text(), end="")
