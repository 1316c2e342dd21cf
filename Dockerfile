# One image with the three programs: ingress, processor, hookledger.
# It needs BuildKit: Docker has used it by itself since 23.0; before, set DOCKER_BUILDKIT=1.

FROM rust:1.95-slim-bookworm AS builder

# librdkafka is C, comes with its crate, and is built by its own configure and make. For TLS it wants OpenSSL's headers.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ libssl-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .

# What was downloaded and compiled stays in caches of the builder, so that a change in our code compiles our code only.
# Cargo goes by times of change, and sources from another checkout may be older than the cache: touch makes them newer.
# The programs keep their line numbers for backtraces, compressed: a third of the size.
# The secret is for networks that look into TLS: `docker build --secret id=ca,src=ca-bundle.pem .`; elsewhere there is none.
RUN --mount=type=cache,id=hookledger-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=hookledger-target,target=/src/target,sharing=locked \
    --mount=type=secret,id=ca \
    set -eu; \
    if [ -s /run/secrets/ca ]; then export CARGO_HTTP_CAINFO=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca; fi; \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} +; \
    cargo build --release --locked --features ingress/tls,processor/tls,cli/tls \
        --package ingress --package processor --package cli --bins; \
    mkdir /out; \
    for program in ingress processor hookledger; do \
        objcopy --compress-debug-sections "target/release/$program" "/out/$program"; \
    done


FROM debian:bookworm-slim

# For TLS to Kafka: OpenSSL, and the authorities that Debian trusts.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/*

# The number is fixed, because volumes remember it.
RUN groupadd --gid 10001 hookledger \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/hookledger --shell /usr/sbin/nologin hookledger \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/hookledger /etc/hookledger /etc/hookledger/secrets /etc/hookledger/path-keys

COPY --from=builder /out/ /usr/local/bin/
COPY --chmod=0755 deploy/ready deploy/setup /usr/local/bin/

USER 10001:10001
WORKDIR /var/lib/hookledger
CMD ["hookledger", "--help"]
