# checkov:skip=CKV_DOCKER_2:Kubernetes has probes of its own; for plain Docker there is `docker exec NAME /reservation-worker health`
# The production image: one static binary and the public roots, on nothing at all.
#
#   docker buildx build --platform linux/amd64,linux/arm64 -t reservation-worker:latest .
#
# RUST_IMAGE must have Rust and a C compiler; to build for another architecture than its own, apt and rustup. Nothing is emulated:
# it compiles for the other one. To pin it: --build-arg RUST_IMAGE=rust:1.95.0-bookworm@sha256:..., the digest being what
# `docker buildx imagetools inspect rust:1.95.0-bookworm` says.
ARG RUST_IMAGE=rust:1.95.0-bookworm

# BuildKit says which platform it runs on, and in TARGETARCH for which it builds.
# hadolint ignore=DL3029
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS builder
WORKDIR /build
COPY .ci/image-build .ci/
# Adds the list of crates to the binary, for `cargo audit bin` and image scanners; empty leaves it out.
ARG AUDITABLE=0.7.7
ARG TARGETARCH
RUN .ci/image-build tools
# With the profile of `make profile`, where there is one: a pattern may match nothing, but the folder before it must exist.
COPY Cargo.toml Cargo.lock build.rs rustfmt.toml targe[t]/pgo/worker.profdata ./
COPY proto proto
# The workspace's other members are never built here, but cargo wants to read them.
COPY crates/sandbox/Cargo.toml crates/sandbox/build.rs crates/sandbox/
COPY crates/faults/Cargo.toml crates/faults/
COPY crates/bench/Cargo.toml crates/bench/build.rs crates/bench/
# The dependencies, in a layer of their own: it is built again only when the files above change.
RUN mkdir -p src tests/simulation tests/partial crates/sandbox/src crates/faults/src crates/bench/src crates/bench/benches \
 && echo 'fn main() {}' >src/main.rs \
 && cp src/main.rs tests/simulation/main.rs && cp src/main.rs tests/partial/main.rs \
 && cp src/main.rs crates/bench/benches/pure.rs \
 && touch src/lib.rs crates/sandbox/src/lib.rs crates/faults/src/lib.rs crates/bench/src/lib.rs \
 && .ci/image-build worker \
 && rm -r src
COPY src src
# cargo compares times, and the copied files may be older than the placeholders.
RUN find src -name '*.rs' -exec touch {} + \
 && .ci/image-build worker
# Without it glibc asks DNS before /etc/hosts.
RUN echo 'hosts: files dns' >/nsswitch.conf

FROM scratch
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="reservation-worker" \
      org.opencontainers.image.description="Consumes reservation and payment events from Amazon SQS and makes a Reservation API and an Inventory service agree about each seat" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /nsswitch.conf /etc/nsswitch.conf
COPY --from=builder /reservation-worker /reservation-worker
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8040
STOPSIGNAL SIGTERM
ENTRYPOINT ["/reservation-worker"]
