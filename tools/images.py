"""Our images and the stand-ins for others', built without a registry by docker or podman.

The base is made by debootstrap under the name the Dockerfiles use; a base for building has this machine's CA and wheels
besides, of which nothing is left in an image.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAND_INS = ROOT / "tests" / "compose" / "stand-ins"
BASE, BUILD_BASE = "python:3.11-slim-bookworm", "memory3-test-build-base"
TIERS = ("memory", "ingest", "retrieval", "decoder")
STAND_IN_FILES = {"s3": "seaweedfs", "milvus": "milvus", "collector": "rotel"}


class Images:
    """Builds below a folder. `engine` runs docker or podman with arguments, returns the output, raises for an error."""

    def __init__(self, engine: Callable[..., str], work: Path) -> None:
        self._engine, self._work = engine, work

    def there(self, name: str) -> bool:
        """Whether the engine has this image."""
        return bool(self._engine("images", "-q", name).strip())

    def bases(self, wheels: Path | None = None) -> None:
        """The base under its official name, and the base for building."""
        if not self.there(BASE):
            rootfs, archive = self._work / "rootfs", self._work / "rootfs.tar"
            if not (rootfs / "usr").is_dir():
                include = "--include=python3,python3-venv,python3-pip,ca-certificates"
                _run("debootstrap", "--variant=minbase", include, "bookworm", str(rootfs))
            _run("tar", "-C", str(rootfs), "-cf", str(archive), ".")
            path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            self._engine("import", "--change", path, str(archive), BASE)
            archive.unlink()
        context = self._work / "build-base"
        shutil.rmtree(context, ignore_errors=True)
        (context / "wheels").mkdir(parents=True)
        shutil.copy(host_ca(), context / "ca.crt")
        for wheel in wheels.glob("*.whl") if wheels else ():
            shutil.copy(wheel, context / "wheels")
        (context / "Dockerfile").write_text(
            f"FROM {BASE}\nCOPY ca.crt /etc/host-ca.crt\nCOPY wheels /wheels\n"
            "ENV PIP_CERT=/etc/host-ca.crt PIP_FIND_LINKS=/wheels\n"
        )
        self._engine("build", "-t", BUILD_BASE, str(context))

    def tier(self, name: str) -> None:
        """Build the image of a tier."""
        revision = _run("git", "-C", str(ROOT), "rev-parse", "HEAD").strip()
        arguments = {"BUILD_BASE": BUILD_BASE, "REVISION": revision}
        self._build(ROOT / "services" / name / "Dockerfile", image(name), arguments, ROOT)

    def stand_in(self, name: str) -> None:
        """Build an image in the place of somebody else's: s3, milvus, collector."""
        file = STAND_INS / f"{STAND_IN_FILES[name]}.Dockerfile"
        self._build(file, f"memory3-test-{name}", {"BUILD_BASE": BUILD_BASE}, STAND_INS)

    def _build(self, file: Path, name: str, arguments: Mapping[str, str], context: Path) -> None:
        given = [item for key, value in arguments.items() for item in ("--build-arg", f"{key}={value}")]
        self._engine("build", "-f", str(file), "-t", name, *given, str(context))


def image(tier: str) -> str:
    """The name of a tier's image."""
    return f"memory3-{tier}:0.1.0"


def host_ca() -> Path:
    """The authorities this machine trusts."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or paths.openssl_cafile)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
