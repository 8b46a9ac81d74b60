"""Builds images with podman, and runs them as a cluster would."""

import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABELS = {
    "org.opencontainers.image.revision": "0123abc",
    "org.opencontainers.image.version": "v9.9.9",
    "org.opencontainers.image.source": "https://example.org/lavin",
}
CONFINED = ("--read-only", "--network=none", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp:rw,mode=1777")


def _limit(name: int, most: int) -> int:
    hard = resource.getrlimit(name)[1]
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


# podman's own limits are above what a sandbox may set.
LIMITS = (f"--ulimit=nofile={_limit(resource.RLIMIT_NOFILE, 1024)}", f"--ulimit=nproc={_limit(resource.RLIMIT_NPROC, 4096)}")


def call(*command: str) -> bytes:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:].decode()}\n{done.stderr[-4000:].decode()}"
    return done.stdout


def podman(*arguments: str) -> str:
    return podman_bytes(*arguments).decode()


def podman_bytes(*arguments: str) -> bytes:
    # crun refuses the mixed cgroups of a machine without systemd; runc takes them.
    runtime = ("--runtime", "runc", "--cgroup-manager", "cgroupfs") if shutil.which("runc") else ()
    return call("podman", *runtime, *arguments)


@dataclass(frozen=True)
class Builder:
    """Builds a target of the Dockerfile from this machine's own wheels: nothing of its pip's configuration goes in."""

    base: str
    wheels: Path
    pip_conf: Path

    def build(self, context: Path, target: str, name: str) -> str:
        values = {"BASE": self.base} | {label.rpartition(".")[2].upper(): value for label, value in LABELS.items()}
        arguments = [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]
        secrets = ("--secret", f"id=pip.conf,src={self.pip_conf}", "--volume", f"{self.wheels}:/wheels:ro")
        podman(
            "build",
            "--quiet",
            "--isolation=chroot",
            "--network=host",
            *secrets,
            *arguments,
            "--target",
            target,
            "--tag",
            name,
            str(context),
        )
        return name


@dataclass(frozen=True)
class Image:
    """A built image, and what a cluster lets it do: no root, no network, nothing writable but /tmp and what is mounted."""

    target: str
    name: str

    def run(self, *command: str, mounts: Mapping[Path, str] | None = None) -> str:
        """What a command says; the image's own entry point is left out."""
        return podman("run", "--rm", *self.options(mounts), "--entrypoint", command[0], self.name, *command[1:])

    def python(self, program: str) -> str:
        return self.run("python", "-c", program).strip()

    @staticmethod
    def options(mounts: Mapping[Path, str] | None = None) -> list[str]:
        return [*CONFINED, *LIMITS, *(f"--volume={path}:{place}" for path, place in (mounts or {}).items())]
