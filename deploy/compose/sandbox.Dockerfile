# checkov:skip=CKV_DOCKER_2:the stand-ins are up at once, and nothing waits for them
# The stand-ins for the Reservation API and the Inventory service. For trying things out only; never part of the worker's image.
ARG RUST_IMAGE=rust:1.95.0-bookworm
ARG BASE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS builder
WORKDIR /build
COPY . .
RUN cargo build --locked --package reservation-worker-sandbox --bin sandbox

FROM ${BASE}
COPY --from=builder /build/target/debug/sandbox /sandbox
USER 65532:65532
STOPSIGNAL SIGINT
ENTRYPOINT ["/sandbox"]
