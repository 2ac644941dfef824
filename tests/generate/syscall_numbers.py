"""Make rootless_pyoki/plan/syscall_numbers*.py from the kernel's installed headers.

    python tests/generate/syscall_numbers.py [--root DIR] [--write]

Reads asm/unistd*.h of linux-libc-dev and of Debian's linux-libc-dev-*-cross packages through
`cc -E -dM`, below DIR (default /; repeatable: `dpkg-deb -x` trees do as well). Tables whose headers
are not installed keep what the committed modules say. Younger calls are added from `LATER`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

PLAN = Path(__file__).resolve().parents[2] / "rootless_pyoki" / "plan"

# table: (multiarch folders that may carry the header, header, macros of its compiler)
SOURCES: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "x86_64": (("x86_64-linux-gnu",), "asm/unistd_64.h", ()),
    "x86": (("x86_64-linux-gnu", "i686-linux-gnu"), "asm/unistd_32.h", ()),
    "x32": (
        ("x86_64-linux-gnu", "x86_64-linux-gnux32"),
        "asm/unistd_x32.h",
        ("__X32_SYSCALL_BIT=0x40000000",),
    ),
    "aarch64": (("aarch64-linux-gnu",), "asm/unistd.h", ()),
    "arm": (("arm-linux-gnueabihf", "arm-linux-gnueabi"), "asm/unistd.h", ("__ARM_EABI__",)),
    # no Debian 12 package: the generic table, as arch/loongarch/…/asm/unistd.h asks for it
    "loongarch64": (
        ("aarch64-linux-gnu",),
        "asm-generic/unistd.h",
        ("__ARCH_WANT_SYS_CLONE", "__ARCH_WANT_SYS_CLONE3", "__ARCH_WANT_NEW_STAT"),
    ),
    "m68k": (("m68k-linux-gnu",), "asm/unistd_32.h", ()),
    "mips": (("mips-linux-gnu", "mipsel-linux-gnu"), "asm/unistd_o32.h", ("__NR_Linux=4000",)),
    "mips64": (("mips64-linux-gnuabi64",), "asm/unistd_n64.h", ("__NR_Linux=5000",)),
    "mips64n32": (("mips64-linux-gnuabi64",), "asm/unistd_n32.h", ("__NR_Linux=6000",)),
    "parisc": (("hppa-linux-gnu",), "asm/unistd_32.h", ()),
    "parisc64": (("hppa-linux-gnu",), "asm/unistd_64.h", ()),
    "ppc": (("powerpc64le-linux-gnu", "powerpc-linux-gnu"), "asm/unistd_32.h", ()),
    "ppc64": (("powerpc64le-linux-gnu", "powerpc-linux-gnu"), "asm/unistd_64.h", ()),
    "riscv64": (("riscv64-linux-gnu",), "asm/unistd.h", ()),
    "s390": (("s390x-linux-gnu",), "asm/unistd_32.h", ()),
    "s390x": (("s390x-linux-gnu",), "asm/unistd_64.h", ()),
    "sh": (("sh4-linux-gnu",), "asm/unistd_32.h", ()),
}

# Which module a table lives in: what most machines need is loaded alone.
MODULES = {
    "syscall_numbers.py": ("x86_64", "x86", "x32", "aarch64", "arm"),
    "syscall_numbers_rare.py": tuple(SOURCES)[5:],
}

# Where an architecture's table starts; calls that all architectures share count from there.
BASES = {"x32": 0x40000000, "mips": 4000, "mips64": 5000, "mips64n32": 6000}

# Calls added after Linux 6.1, same number on every architecture (scripts/syscall.tbl).
LATER = dict(
    enumerate(
        [
            "cachestat",
            "fchmodat2",
            "map_shadow_stack",
            "futex_wake",
            "futex_wait",
            "futex_requeue",
            "statmount",
            "listmount",
            "lsm_get_self_attr",
            "lsm_set_self_attr",
            "lsm_list_modules",
            "mseal",
            "setxattrat",
            "getxattrat",
            "listxattrat",
            "removexattrat",
            "open_tree_attr",
            "file_getattr",
            "file_setattr",
            "listns",
        ],
        451,
    )
)
LATER_OF = {
    "x86_64": {335: "uretprobe", 336: "uprobe"},
    "riscv64": {258: "riscv_hwprobe"},
    "s390": {447: "memfd_secret"},
    "s390x": {447: "memfd_secret"},
    "parisc": {356: "cacheflush"},
    "parisc64": {356: "cacheflush"},
    "sh": {388: "sync_file_range2"},
}

LACKING = {"x32": {"map_shadow_stack"}}  # of LATER, what an architecture does not have

# not calls: limits, bases and masks
NO_CALL = re.compile(
    r"(syscalls|syscall_count|arch_specific_syscall|(OABI_)?SYSCALL_BASE|SYSCALL_MASK"
    r"|reserved\d+|unused\d+|((O32|64|N32)_)?Linux.*)$"
)


def header_of(table: str, roots: list[Path]) -> tuple[Path, Path] | None:
    """(include folder, header) of the first installed package that has the table."""
    folders, header, _ = SOURCES[table]
    for root in roots:
        for folder in folders:
            for include in (root / "usr" / folder / "include", root / "usr/include" / folder):
                if (include / header).exists():
                    return include, include / header
    return None


def read_header(table: str, include: Path, header: Path) -> dict[str, int]:
    """name → number as the preprocessor sees the header."""
    defines = [f"-D{macro}" for macro in SOURCES[table][2]]
    generic = ["-isystem", "/usr/include"]
    command = ["cc", "-E", "-dM", "-nostdinc", f"-I{include}", *generic, *defines, str(header)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    macros = dict(re.findall(r"^#define (\w+) (.+)$", text, re.M))

    def value(expression: str) -> int:
        replaced = re.sub(
            r"(?<!\w)[A-Za-z_]\w*", lambda m: str(value(macros[m.group()])), expression
        )
        if not re.fullmatch(r"[0-9a-fxA-F+() ]+", replaced):
            raise ValueError(f"{table}: cannot read {expression!r}")
        return sum(int(part, 0) for part in replaced.replace("(", "").replace(")", "").split("+"))

    numbers: dict[str, int] = {}
    for macro, expression in macros.items():
        found = re.match(r"__(?:ARM_)?NR_(.+)$", macro)
        if found and not NO_CALL.match(found.group(1)) and macro != "__ARM_NR_BASE":
            numbers[found.group(1)] = value(expression)
    return numbers


def segments_of(table: str, numbers: dict[str, int]) -> list[tuple[int, str]]:
    """Runs of names in the order of their numbers: (first number, names), "-" for a hole."""
    base = BASES.get(table, 0)
    numbers = dict(numbers)
    for offset, name in {**LATER, **LATER_OF.get(table, {})}.items():
        if name not in LACKING.get(table, ()):
            numbers.setdefault(name, base + offset)
    runs: list[tuple[int, list[str]]] = []
    again: list[tuple[int, str]] = []
    for number, name in sorted((number, name) for name, number in numbers.items()):
        end = runs[-1][0] + len(runs[-1][1]) if runs else -100
        if number < end:
            again.append((number, name))  # a second name of the same number
        elif number - end > 20:
            runs.append((number, [name]))
        else:
            runs[-1][1].extend(["-"] * (number - end) + [name])
    return [(first, " ".join(names)) for first, names in runs] + again


def render(tables: dict[str, list[tuple[int, str]]], rare: bool) -> str:
    """The module's text."""
    what = "rarer architectures" if rare else "x86 and Arm"
    lines = [
        f'"""System call numbers of {what}; generated by tests/generate/syscall_numbers.py.',
        "",
        'Runs of names in the order of their numbers: (number of the first, names), "-" is a hole.',
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "TABLES: dict[str, tuple[tuple[int, str], ...]] = {",
    ]
    for table, runs in tables.items():
        lines.append(f'    "{table}": (')
        for first, names in runs:
            shown = f"0x{first:X}" if first >= 0x10000 else str(first)
            words = names.split()
            if len(names) < 80:
                lines.append(f'        ({shown}, "{names}"),')
                continue
            lines.append("        (")
            lines.append(f"            {shown},")
            row = ""
            rows = []
            for word in words:
                if len(row) + len(word) > 82:
                    rows.append(row)
                    row = ""
                row += word + " "
            rows.append(row.rstrip())
            lines.extend(f'            "{row}"' for row in rows)
            lines[-1] += ","
            lines.append("        ),")
        lines.append("    ),")
    lines.append("}")
    return "\n".join(lines) + "\n"


def committed() -> dict[str, list[tuple[int, str]]]:
    """What the modules in the tree say now."""
    tables: dict[str, list[tuple[int, str]]] = {}
    for module in MODULES:
        scope: dict[str, dict[str, tuple[tuple[int, str], ...]]] = {}
        if (PLAN / module).exists():
            exec((PLAN / module).read_text(), scope)  # our own generated data
            tables.update({table: list(runs) for table, runs in scope["TABLES"].items()})
    return tables


def generate(roots: list[Path]) -> tuple[dict[str, str], set[str]]:
    """({module name: text}, tables that were read from headers)."""
    tables = committed()
    fresh: set[str] = set()
    for table in SOURCES:
        if found := header_of(table, roots):
            tables[table] = segments_of(table, read_header(table, *found))
            fresh.add(table)
    texts = {
        module: render({table: tables[table] for table in names}, "rare" in module)
        for module, names in MODULES.items()
    }
    return texts, fresh


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", action="append", type=Path, default=[])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    texts, fresh = generate([*options.root, Path("/")])
    print("read from headers:", " ".join(sorted(fresh)))
    print("kept as they are:", " ".join(sorted(set(SOURCES) - fresh)) or "none")
    for module, text in texts.items():
        if options.write:
            (PLAN / module).write_text(text)
        elif (PLAN / module).read_text() != text:
            print(f"{module} is stale")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
