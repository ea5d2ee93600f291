# The image of Countersign, with what exports to an OpenTelemetry collector. See docs/containers.md.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/otel.txt requirements/
RUN python3 -m venv --without-pip /opt/countersign
# Where packages come from is the builder's business: pip's configuration, and the authorities it may name as
# /run/secrets/ca.pem, are secrets of the build and in no layer. Both may be left out.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem,target=/run/secrets/ca.pem \
    python3 -m pip --python /opt/countersign/bin/python install -q --require-hashes --no-deps --only-binary :all: \
      -r requirements/otel.txt
COPY pyproject.toml README.md ./
COPY agent agent
COPY certs certs
COPY proxy proxy
RUN python3 -m pip --python /opt/countersign/bin/python install -q --no-index --no-deps --no-build-isolation .

FROM ${BASE_IMAGE}
COPY --from=build /opt/countersign /opt/countersign
COPY deploy/*.py /opt/countersign/deploy/
ENV PATH=/opt/countersign/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
# Whether a process can be started at all; what a service must answer is in docker-compose.yml.
HEALTHCHECK --interval=30s --timeout=10s CMD ["countersign", "--version"]
ENTRYPOINT ["countersign"]
CMD ["demo"]
