"""Our images and the stand-ins for others', built without a registry by docker or podman.

The base is made by debootstrap under the name the Dockerfiles use; a base for building has this machine's CA and wheels
besides, of which nothing is left in an image.
"""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAND_INS = ROOT / "tests" / "compose" / "stand-ins"
BASE, BUILD_BASE = "python:3.11-slim-bookworm", "memory3-test-build-base"
TIERS = ("memory", "ingest", "retrieval", "decoder")
STAND_IN_FILES = {"s3": "seaweedfs", "milvus": "milvus"}


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
        for wheel in wheels.glob("torch-*.whl") if wheels else ():
            shutil.copy(wheel, context / "wheels")
        (context / "Dockerfile").write_text(
            f"FROM {BASE}\nCOPY ca.crt /etc/host-ca.crt\nCOPY wheels /wheels\n"
            "ENV PIP_CERT=/etc/host-ca.crt PIP_FIND_LINKS=/wheels\n"
        )
        self._engine("build", "-t", BUILD_BASE, str(context))

    def tier(self, name: str) -> str:
        """Build the image of a tier; returns its name."""
        image = f"memory3-{name}:0.1.0"
        self._build(ROOT / "services" / name / "Dockerfile", image, ROOT)
        return image

    def stand_in(self, name: str) -> str:
        """Build a stand-in (s3, milvus); returns its name."""
        image = f"memory3-test-{name}"
        self._build(STAND_INS / f"{STAND_IN_FILES[name]}.Dockerfile", image, STAND_INS)
        return image

    def _build(self, file: Path, image: str, context: Path) -> None:
        self._engine("build", "-f", str(file), "-t", image, "--build-arg", f"BUILD_BASE={BUILD_BASE}", str(context))


def host_ca() -> Path:
    """The authorities this machine trusts."""
    paths = ssl.get_default_verify_paths()
    return Path(paths.cafile or paths.openssl_cafile)


@contextlib.contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Says what goes on, and notes how long it took."""
    print(f"{name} ...", flush=True)
    began = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - began, 1)
    print(f"{name}: {seconds[name]} s", flush=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
