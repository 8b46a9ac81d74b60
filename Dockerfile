# Two images from one file: `pipeline` (every step, the launcher, the lavin command) and `serve` (a bundle's server: no torch, no kfp).
# `make image` builds both. BASE is any Debian-like image with Python 3.11 and its venv. Dependencies come from the lock, constraints.txt.
# What pip needs to know of a mirror, a token or torch's CPU build comes as the build secret `pip.conf`, which is in no layer and no history.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# --- Python, and the user that everything runs as
FROM ${BASE} AS base
RUN groupadd --gid 10001 lavin \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lavin \
 && install --directory --owner 10001 --group 10001 /workspace
# Only /tmp, /dev/shm and /workspace need to be writable: whatever keeps a cache keeps it there.
ENV PATH=/opt/lavin/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/.matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DVC_NO_ANALYTICS=1

# --- What pip installs, without our own code: a change of the code leaves these layers as they are
FROM base AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_CONSTRAINT=/build/constraints.txt
RUN python3 -m venv /opt/lavin
WORKDIR /build
COPY pyproject.toml constraints.txt ./

FROM builder AS pipeline-dependencies
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
 && pip install --requirement requirements.txt

FROM builder AS serve-dependencies
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['serve'], sep='\n')" > requirements.txt \
 && pip install --requirement requirements.txt

# --- Our own code
FROM builder AS wheel
COPY README.md LICENSE ./
COPY recipes recipes
COPY manifests/base/launcher manifests/base/launcher
COPY pipelines pipelines
COPY components components
COPY model model
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    pip wheel --no-deps --wheel-dir /wheel .

# --- The server of a bundle
FROM base AS serve
COPY --from=serve-dependencies /opt/lavin /opt/lavin
COPY --from=wheel /wheel /wheel
RUN pip install --no-index --no-deps --no-cache-dir /wheel/*.whl
ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="LaVin-DiT server" \
      org.opencontainers.image.description="Answers predictions from an exported LaVin-DiT bundle" \
      org.opencontainers.image.licenses="Apache-2.0" \
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
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates git openssh-client \
 && rm -rf /var/lib/apt/lists/*
COPY --from=pipeline-dependencies /opt/lavin /opt/lavin
COPY --from=wheel /wheel /wheel
RUN pip install --no-index --no-deps --no-cache-dir /wheel/*.whl
ARG REVISION=unknown
ARG VERSION=unknown
LABEL org.opencontainers.image.title="LaVin pipelines" \
      org.opencontainers.image.description="Data, training, evaluation, export and promotion of LaVin-DiT" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}"
ENV LAVIN_REVISION=${REVISION}
USER 10001:10001
WORKDIR /workspace
CMD ["lavin", "--help"]
