# Two images from one file: `pipeline` (every step, the launcher, the lavin command) and `serve` (a bundle's server: no torch, no kfp).
# `make image` builds both. BASE is any Debian-like image with Python 3.11 and its venv. Dependencies come from the lock, constraints.txt.
# What pip needs to know of a mirror, a token or torch's CPU build comes as the build secret `pip.conf`, which is in no layer and no history.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# --- Python, and the user that everything runs as
FROM ${BASE} AS base
# The standard library is compiled here, where some bases leave that to the first start: in a read-only image every start would be the first.
RUN groupadd --gid 10001 lavin \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lavin \
 && install --directory --owner 10001 --group 10001 /workspace \
 && python3 -m compileall -q -x '/(site|dist)-packages/' "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# Only /tmp, /dev/shm and /workspace need to be writable: whatever keeps a cache keeps it there.
ENV PATH=/opt/lavin/bin:$PATH \
    HOME=/tmp \
    LANG=C.UTF-8 \
    MPLCONFIGDIR=/tmp/.matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    DVC_NO_ANALYTICS=1

# --- What is to be installed: each list a file of its own, so that what does not touch a list leaves its layer as it is
FROM base AS requirements
WORKDIR /requirements
COPY pyproject.toml constraints.txt ./
# torch and what it asks for: gigabytes, which come again only with another version of these.
RUN grep -iE '^(torch|filelock|fsspec|jinja2|markupsafe|mpmath|networkx|sympy|typing_extensions)==' constraints.txt > torch.txt \
 && python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['datasets'], sep='\n')" > pipeline.txt \
 && python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['serve'], sep='\n')" > serve.txt

# --- Our own code, installed and compiled in a folder of its own
FROM base AS code
RUN python3 -m venv /opt/lavin
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY recipes recipes
COPY manifests/base/launcher manifests/base/launcher
COPY pipelines pipelines
COPY components components
COPY model model
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --no-deps --prefix /code/pipeline . \
 && install --directory /code/serve \
 && cp -r model/lavin_dit /code/serve/ \
 && python3 -m compileall -q /code/serve

# --- The server of a bundle
FROM base AS serve
COPY --from=requirements /requirements/constraints.txt /requirements/serve.txt /opt/lavin/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/lavin \
 && pip install --constraint /opt/lavin/constraints.txt --requirement /opt/lavin/serve.txt
ENV PYTHONPATH=/opt/lavin/code
COPY --from=code /code/serve /opt/lavin/code
ARG REVISION=unknown
ARG VERSION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="LaVin-DiT server" \
      org.opencontainers.image.description="Answers predictions from an exported LaVin-DiT bundle" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}"
ENV LAVIN_REVISION=${REVISION}
USER 10001:10001
WORKDIR /workspace
EXPOSE 8080
ENTRYPOINT ["python", "-m", "lavin_dit.serving"]
CMD ["--help"]

# --- Every step of the pipeline
FROM base AS pipeline
# A base that has git and ssh already needs no package mirror. A shared volume may show files as another user's, which git takes for an attack.
RUN if ! command -v git || ! command -v ssh; then \
      apt-get update \
      && apt-get install --yes --no-install-recommends ca-certificates git openssh-client \
      && rm -rf /var/lib/apt/lists/*; \
    fi \
 && git config --system --add safe.directory '*'
COPY --from=requirements /requirements/torch.txt /opt/lavin/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/lavin \
 && pip install --requirement /opt/lavin/torch.txt
COPY --from=requirements /requirements/constraints.txt /requirements/pipeline.txt /opt/lavin/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip install --constraint /opt/lavin/constraints.txt --requirement /opt/lavin/pipeline.txt
COPY --from=code /code/pipeline /opt/lavin
ARG REVISION=unknown
ARG VERSION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="LaVin pipelines" \
      org.opencontainers.image.description="Data, training, evaluation, export and promotion of LaVin-DiT" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}"
ENV LAVIN_REVISION=${REVISION}
USER 10001:10001
WORKDIR /workspace
CMD ["lavin", "--help"]
