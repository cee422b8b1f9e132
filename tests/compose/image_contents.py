"""Runs inside an image: what is there, as one JSON object. It judges nothing; tools/image_rules.py does."""

import importlib.util
import json
import os
import shutil
import site
from pathlib import Path

VENDORS = ("torch", "ray", "pymilvus", "obstore", "minio", "numpy", "tokenizers", "bs4", "setuptools", "pip")
TOOLS = ("gcc", "cc", "g++", "ld", "make", "cmake", "git", "curl", "wget", "ssh")
LEFT_OVER = (".env", ".git", ".netrc", ".pypirc", "pip.conf", "host-ca.crt", "id_rsa", "id_ed25519", "Dockerfile")
NOT_LOOKED_INTO = ("/proc", "/sys", "/dev", "/check.py")
PRIVATE_KEY = b"PRIVATE KEY-----\n"


def files(top: str) -> list[Path]:
    """All regular files below `top`."""
    found = []
    for folder, names, leaves in os.walk(top):
        names[:] = [name for name in names if str(Path(folder, name)) not in NOT_LOOKED_INTO]
        found += [Path(folder, leaf) for leaf in leaves]
    return [path for path in found if str(path) not in NOT_LOOKED_INTO and path.is_file() and not path.is_symlink()]


def is_key(path: Path) -> bool:
    """Whether a private key lies there; code that only names the marker does not count."""
    if path.suffix in (".py", ".pyc", ".so") or path.stat().st_size > 100_000 or not os.access(path, os.R_OK):
        return False
    return path.read_bytes().lstrip().startswith(b"-----BEGIN") and PRIVATE_KEY in path.read_bytes()


def writable() -> list[str]:
    """Folders that this user can write to, the outermost ones."""
    found: list[str] = []
    for folder, names, _ in os.walk("/"):
        names[:] = [name for name in names if str(Path(folder, name)) not in NOT_LOOKED_INTO]
        if os.access(folder, os.W_OK):
            found.append(folder)
            names.clear()
    return found


def main() -> None:
    everything = files("/")
    packages = Path(site.getsitepackages()[0])
    services = packages / "services"
    print(  # noqa: T201 - the run reads it
        json.dumps(
            {
                "uid": os.getuid(),
                "modules": [name for name in VENDORS if importlib.util.find_spec(name)],
                "tools": [name for name in TOOLS if shutil.which(name)],
                "top": sorted(path.name for path in Path("/").iterdir() if path.name not in (".dockerenv", "check.py")),
                "opt": sorted(path.name for path in Path("/opt").iterdir()),
                "services": sorted(path.name for path in services.iterdir() if path.is_dir() and path.name[0] != "_"),
                "bytecode": all(any((packages / name).glob("__pycache__/*.pyc")) for name in ("memory3", "grpc")),
                "nvidia": (packages / "nvidia").is_dir(),
                "left_over": sorted(str(path) for path in everything if path.name in LEFT_OVER),
                "keys": sorted(str(path) for path in everything if is_key(path)),
                "writable": writable(),
            }
        )
    )


main()
