# Everything that the lock holds, for CPUs. Half of it suffices data workers and accelerator machines:
#
#     docker build --tag opencoder-jax .
#     docker build --tag opencoder-data --build-arg LOCK=requirements-data.txt .
#     docker run --rm --volume "$PWD/runs:/runs" --volume /path/to/repositories:/source:ro opencoder-jax \
#         cookbook --source=/source --output=/runs/cookbook
#     docker run --rm --volume "$PWD/runs:/runs" --entrypoint opencoder-beam opencoder-data --help
FROM python:3.11-slim

# Programs that a model wrote are run, so nothing here runs as root.
RUN useradd --create-home --uid 1000 cook && install --directory --owner=cook /runs

ARG LOCK=requirements.txt
RUN --mount=type=bind,source=${LOCK},target=/lock.txt \
    python -m pip install --no-cache-dir --require-hashes --requirement /lock.txt

# The project from its checkout, by the build backend that the lock brought.
RUN --mount=type=bind,target=/checkout,rw \
    python -m pip install --no-cache-dir --no-deps --no-build-isolation /checkout

USER 1000
WORKDIR /runs
ENTRYPOINT ["opencoder-jax"]
CMD ["--help"]
