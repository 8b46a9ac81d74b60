"""`lavin upload`: a new version of the pipeline on a KFP server; and how a version is found again."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from components.pod_environment import VOLUME
from lavin_dit.errors import InputError
from pipelines.connection import Connection, NotFoundError, all_pages, connect, named
from pipelines.kfp_settings import Host, Namespace, TokenFile
from pipelines.origin import CONTENT, NAME_LENGTH, Origin, content_hash, find_origin
from pipelines.package import Package, read_package

PIPELINE = "lavin-dit"
LATEST = "latest"
WARNING_PREFIX = "lavin: warning: "
SHOWN_VERSIONS = 5

Volume = Annotated[str | None, typer.Option(help=f"The claim of the volume that steps and jobs share; without it {VOLUME}.")]
Platform = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with the launcher.yaml of the cluster, such as manifests/overlays/prod.", show_default=False),
]
Raw = Annotated[Path, typer.Option(metavar="DIR", help="The data whose hash the version's name holds; may be absent.")]


def upload(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="What `lavin compile` wrote.", show_default=False)] = None,
    image: Annotated[
        str | None, typer.Option(help="Compiles for this image, best by digest, instead of taking a file.", show_default=False)
    ] = None,
    volume: Volume = None,
    platform: Platform = None,
    name: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Name of the version; without it git's tag and commit, and the data's hash.")
    ] = None,
    raw: Raw = Path("data/raw"),
    host: Host = None,
    namespace: Namespace = None,
    token_file: TokenFile = None,
) -> None:
    """Uploads the pipeline to a KFP server, as a new version that says what it is made of.

    The first upload makes the pipeline. Uploading the same again changes nothing.
    """
    _check_choice(file, image, volume, platform)
    _check_name(name)
    text, package = read_package(file) if file else ("", None)
    connection = connect(host, namespace, token_file)
    if package is None:
        text = _compile(image or "", volume, platform)
        package = Package.from_text(text, "the compiled pipeline")
    if package.name != PIPELINE:
        raise InputError(f"{file}: holds the pipeline {package.name}; must hold {PIPELINE}")
    origin = find_origin(raw)
    _warn(origin, package)
    upload_version(connection, name or origin.version_name(), text, origin.description(package.images, text))


def upload_version(connection: Connection, name: str, text: str, description: str) -> None:
    """Makes the version, and the pipeline where there is none; or says that the same is there already.

    Raises: InputError where a version of that name is there with other content.
    """
    pipeline = _find_pipeline(connection) or _create_pipeline(connection)
    version = _find_version(connection, pipeline.pipeline_id, name)
    is_new = version is None
    if version is None:
        version = _send(connection, pipeline.pipeline_id, name, text, description)
    elif not (found := CONTENT.search(version.description or "")) or found["hash"] != content_hash(text):
        raise InputError(
            f"version {name}: is there already, with other content than this; commit what you changed, or name this one with --name"
        )
    typer.echo(f"{PIPELINE}: version {name} {'uploaded' if is_new else 'is there already, the same as this'}")
    typer.echo(connection.link(f"pipelines/details/{pipeline.pipeline_id}/version/{version.pipeline_version_id}"))


def find_release(connection: Connection, name: str) -> Any:
    """A version by its name, or the newest for "latest", with its `pipeline_spec`.

    Raises: InputError where there is no such version, which names those that there are.
    """
    pipeline = _find_pipeline(connection)
    if pipeline is None:
        raise InputError(f"{connection.host} has no pipeline {PIPELINE}; `lavin upload` makes it")
    if name != LATEST and (version := _find_version(connection, pipeline.pipeline_id, name)):
        return _whole(connection, version)
    page = connection.pipelines.pipeline_service_list_pipeline_versions(
        pipeline.pipeline_id, sort_by="created_at desc", page_size=1 if name == LATEST else SHOWN_VERSIONS
    )
    versions = page.pipeline_versions or []
    if not versions:
        raise InputError(f"{connection.host} has no version of {PIPELINE}; `lavin upload` makes one")
    if name == LATEST:
        return _whole(connection, versions[0])
    known = ", ".join(version.display_name for version in versions)
    raise InputError(f"--version {name}: {PIPELINE} has no such version; newest: {known}")


def _whole(connection: Connection, version: Any) -> Any:
    """With the pipeline itself, which a list of versions may leave out."""
    return connection.pipelines.pipeline_service_get_pipeline_version(version.pipeline_id, version.pipeline_version_id)


def pipeline_id(connection: Connection) -> str:
    """The pipeline's identifier; empty where the server has no such pipeline."""
    pipeline = _find_pipeline(connection)
    return pipeline.pipeline_id if pipeline else ""


def warn(sentence: str) -> None:
    """One line on standard error."""
    typer.echo(f"{WARNING_PREFIX}{sentence}", err=True)


def _check_choice(file: Path | None, image: str | None, volume: str | None, platform: Path | None) -> None:
    if (file is None) == (image is None):
        raise InputError("upload: takes either a FILE that `lavin compile` wrote, or --image to compile for")
    if file and (volume or platform):
        option = f"--volume {volume}" if volume else f"--platform {platform}"
        raise InputError(f"{option}: goes with --image; {file} was compiled for a volume and a platform already")


def _check_name(name: str | None) -> None:
    if name is not None and (name == LATEST or not 0 < len(name.strip()) == len(name) <= NAME_LENGTH):
        raise InputError(f"--name {name}: must have 1 to {NAME_LENGTH} characters, no space at an end, and not be {LATEST}")


def _compile(image: str, volume: str | None, platform: Path | None) -> str:
    from pipelines.compile import compile_for

    return compile_for(image, volume=volume or VOLUME, platform=platform).text()


def _warn(origin: Origin, package: Package) -> None:
    if origin.is_dirty:
        warn("the work tree holds changes that no commit has; nobody else can make this version again")
    for image in package.images:
        if "@sha256:" not in image:
            warn(f"image {image} has no digest: steps may be taken from the cache that another image of this name made")


def _find_pipeline(connection: Connection) -> Any:
    try:
        return connection.pipelines.pipeline_service_get_pipeline_by_name(PIPELINE, **connection.scope())
    except NotFoundError:
        return None


def _create_pipeline(connection: Connection) -> Any:
    body = {"name": PIPELINE, "display_name": PIPELINE, "description": "LaVin-DiT: data in, a promoted model out."}
    return connection.pipelines.pipeline_service_create_pipeline({**body, **connection.scope()})


def _find_version(connection: Connection, pipeline: str, name: str) -> Any:
    found = all_pages(
        connection.pipelines.pipeline_service_list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline, filter=named(name)
    )
    return found[0] if found else None


def _send(connection: Connection, pipeline: str, name: str, text: str, description: str) -> Any:
    # The server tells YAML from an archive by the file's name.
    with tempfile.TemporaryDirectory(prefix="lavin-") as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_bytes(text.encode())
        return connection.uploads.upload_pipeline_version(str(file), name=name, pipelineid=pipeline, description=description)
