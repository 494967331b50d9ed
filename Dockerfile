# The production image: the worker alone, on a small Debian, as a user without rights.
#
#   docker buildx build --load -t reservation-worker .
#
# RUST_IMAGE must have Rust and a C compiler; BASE a glibc at least as new as its, and libgcc.

ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS builder
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs rustfmt.toml ./
COPY proto proto
# The workspace's other members are never built here, but cargo wants to read them.
COPY tests/support/Cargo.toml tests/support/build.rs tests/support/
COPY benches/Cargo.toml benches/build.rs benches/
# The dependencies, in a layer of their own: it is built again only when the files above change.
RUN mkdir -p src tests/support/src benches/src \
 && echo 'fn main() {}' >src/main.rs \
 && touch src/lib.rs tests/support/src/lib.rs benches/src/lib.rs \
 && cargo build --locked --release --package reservation-worker \
 && rm -r src
COPY src src
# cargo compares times, and the copied files may be older than the placeholders.
RUN find src -name '*.rs' -exec touch {} + \
 && cargo build --locked --release --package reservation-worker \
 && ./target/release/reservation-worker --version

FROM ${BASE}
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /build/target/release/reservation-worker /reservation-worker
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8040
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/reservation-worker", "health"]
ENTRYPOINT ["/reservation-worker"]
