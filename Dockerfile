# The task system: workers, beat, Flower, gateway, intake and the `packetfs` command, as docker-compose.yml runs them. From the root:
#   docker build --tag packetfs .
#
# Everything of install_requires, Flower and the gateway, by hash; the wheel is built where a compiler is. The compute server has an image of
# its own, remote/fly/Dockerfile.fly, which also says how to pin the two images by digest.
ARG BUILD_IMAGE=python:3.11-bookworm
ARG RUNTIME_IMAGE=python:3.11-slim-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY deploy/build.txt deploy/worker.txt deploy/
RUN python -m venv /build \
 && python -m venv --without-pip /opt/packetfs \
 && /build/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement deploy/build.txt \
 && /build/bin/pip --python /opt/packetfs/bin/python install --no-cache-dir --no-deps --require-hashes --requirement deploy/worker.txt
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY packetfs_compute packetfs_compute
COPY tasks tasks
# The extension is optional for setup.py, so that its absence has to fail here.
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/packetfs/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
 && /opt/packetfs/bin/python -I -c "from packetfs_compute import kernels; assert kernels.native_error() is None"

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="PacketFS workers" \
      org.opencontainers.image.description="Celery workers, beat, Flower, gateway and intake of PacketFS Unified Compute" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin packetfs
COPY --from=build /opt/packetfs /opt/packetfs
COPY deploy/healthcheck.py /srv/packetfs/
# A container's root is read-only there; what a worker writes (its metrics, beat's schedule) may go when it goes.
ENV PATH=/opt/packetfs/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PACKETFS_DATA_DIR=/tmp/packetfs
WORKDIR /srv/packetfs
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["celery", "--app", "packetfs_compute", "worker", "--queues", "packetfs.local", "--hostname", "local@%h"]
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 CMD ["python", "healthcheck.py", "consuming", "local"]
