# Builds the image with a container engine. `make image` builds an image of the same files without one.
#
#   docker build --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) --build-arg REVISION=$(git rev-parse HEAD) --tag ensign .
#
# Build on a machine of the image's architecture: the compiler is slow under emulation.
ARG RUST_VERSION=1.89
FROM rust:${RUST_VERSION}-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libc6-dev python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ensign
COPY . .
# The commit's time and hash, because there is no git in the build stage.
ARG SOURCE_DATE_EPOCH
ARG REVISION
RUN python3 dev/image.py --root /image --revision "$REVISION"

FROM scratch
ARG REVISION
LABEL org.opencontainers.image.title="ensign" \
      org.opencontainers.image.description="Gives Kubernetes workloads an Azure identity without a secret anywhere" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
ENV PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt MALLOC_ARENA_MAX=1
USER 65532:65532
ENTRYPOINT ["/usr/bin/ensign"]
