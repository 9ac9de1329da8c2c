# syntax=docker/dockerfile:1
# The program in a container of its own: no shell, no root. docs/install.md says how to run it.
#
#   docker build --build-arg REVISION=$(git rev-parse --short=12 HEAD) -t homing .

FROM rust:1.95-slim-bookworm AS build
# A C compiler, make and cmake: ring, zstd and zlib-ng are partly C.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev make cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
# What Cargo.toml names must be there, the tests and benches too; .dockerignore leaves the rest out.
COPY . .
ARG REVISION=unknown
ENV HOMING_REVISION=$REVISION
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin homing \
 && cp target/release/homing /homing

# glibc, libgcc and the system's certificate authorities. Its user is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /homing /usr/bin/homing
COPY --from=build /source/LICENSE /usr/share/doc/homing/LICENSE
ENV HOMING_CONFIG=/etc/homing/homing.yaml
EXPOSE 8080
# At 127.0.0.1:9900; another address of `admin` in HOMING_ADMIN, a token in HOMING_ADMIN_TOKEN.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/bin/homing", "status"]
ENTRYPOINT ["/usr/bin/homing"]
CMD ["run"]
