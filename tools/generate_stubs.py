"""Generate memory3/api from protos/: wipe, compile, add package files.

Paths, proto packages and Python modules agree, so nothing is rewritten afterwards. `--check` compares instead of
writing and exits 1 when the committed stubs are stale.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(out: Path) -> None:
    """Compile every proto below protos/ into `out`/memory3/api."""
    import grpc_tools  # noqa: PLC0415 - only its folder is wanted: google's well-known protos lie beside it

    files = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}={out}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    code = protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *outputs, *files])
    if code != 0:
        raise SystemExit(code)
    api = out / "memory3" / "api"
    for folder in [api, *(path for path in api.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text('"""Generated from protos/ by `make proto`; do not edit."""\n')


def differences(left: Path, right: Path) -> list[str]:
    """Relative paths that differ between two trees of stubs, in order."""
    names = {
        str(p.relative_to(base)) for base in (left, right) for p in base.rglob("*.py*") if "__pycache__" not in p.parts
    }
    return sorted(
        n
        for n in names
        if not ((left / n).is_file() and (right / n).is_file() and filecmp.cmp(left / n, right / n, shallow=False))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed stubs are stale; write nothing")
    check = parser.parse_args().check
    target = ROOT / "memory3" / "api"
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / "memory3" / "api"
        if check:
            stale = differences(fresh, target)
            if stale:
                print("stale stubs, run `make proto`:", *stale, sep="\n  ")
                sys.exit(1)
            return
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(fresh, target)


if __name__ == "__main__":
    main()
