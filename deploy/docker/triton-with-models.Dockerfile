# A model store inside Triton's image, for pools with `engine: triton`. The build context is the folder that holds it:
#   docker build --file deploy/docker/triton-with-models.Dockerfile --tag triton-with-models:1 .shoal
# Pin it by the digest that your registry says: --build-arg TRITON=nvcr.io/nvidia/tritonserver:26.04-py3@sha256:…
#   docker buildx imagetools inspect nvcr.io/nvidia/tritonserver:26.04-py3 --format '{{json .Manifest.Digest}}'
ARG TRITON=nvcr.io/nvidia/tritonserver:26.04-py3
FROM ${TRITON}
COPY models /models
USER 65532:65532
