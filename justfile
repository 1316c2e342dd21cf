# The few commands that a person needs: `just check`. Without just, type what stands behind the word.

# Format, lints, and that everything compiles.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# What needs no broker: unit tests, property tests, commands.
test:
    cargo test --workspace --exclude tests

# The whole system on a real Kafka; CONTRIBUTING.md says what that needs.
it:
    cargo test -p tests

# The cluster form on this machine, with Prometheus; docs/docker.md goes on from there.
up:
    docker compose up -d

# Stops it. What was kept stays in its volumes.
down:
    docker compose down

# The API documents of our own crates.
doc:
    cargo doc --workspace --no-deps --open

# Ingress and processor side by side with simpler handlers, on a real Kafka.
bench *arguments:
    cargo run --release -p bench -- {{arguments}}
