# A model store inside the image, for pools with the embedded engine. The build context is the folder that holds it:
#   docker build --file deploy/docker/shoal-with-models.Dockerfile --tag shoal-with-models:1 .shoal
# Yours may be pinned: --build-arg SHOAL=registry.example/shoal:0.1.0@sha256:…
ARG SHOAL=shoal:0.1.0
FROM ${SHOAL}
COPY models /models
USER 65532:65532
