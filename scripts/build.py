# SPDX-License-Identifier: Apache-2.0
"""Build the sdist, and the wheel from the content of the sdist.

The bytes depend on the sources alone: hatchling sorts the files, and gives each the same time, owner and mode.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Return the paths of the sdist and the wheel.

    :param folder: Where they are written to.
    :param source: The repository, or a copy of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _hatchling("sdist", source, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="sdist-") as unpacked:
        with tarfile.open(sdist) as archive:
            archive.extractall(unpacked, filter="data")
        (content,) = Path(unpacked).iterdir()
        _hatchling("wheel", content, folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def check(*files: Path) -> None:
    """Fail if an index would refuse the metadata, or could not render the description."""
    _run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files), cwd=ROOT)


def check_tag(tag: str, sdist: Path) -> None:
    """Fail if a tag is not that of the version that was built.

    :param tag: Such as v1.2.3; empty where there is no tag.
    :param sdist: What was built.
    """
    version = sdist.name.removesuffix(".tar.gz").rpartition("-")[2]
    if tag not in ("", f"v{version}"):
        raise SystemExit(f"The tag is {tag}, but what was built is version {version}")


def _hatchling(target: str, source: Path, folder: Path) -> None:
    # Not through `build`: that would fetch a second hatchling for an isolated environment.
    _run(sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder), cwd=source)


def _run(*command: str, cwd: Path) -> None:
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])}\n{done.stdout.decode(errors='replace')}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "dist", help="older sdists and wheels in it go (default: dist)"
    )
    parser.add_argument(
        "--tag", default="", help="fail unless this is the tag of the version that is built, such as v1.2.3"
    )
    arguments = parser.parse_args()
    for former in (*arguments.folder.glob("*.tar.gz"), *arguments.folder.glob("*.whl")):
        former.unlink()
    files = build(arguments.folder.resolve())
    check_tag(arguments.tag, files[0])
    check(*files)
    for file in files:
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
