# A model store inside Triton's image, for pools with `engine: triton`. The build context is the folder that holds it:
#   docker build --file deploy/docker/triton-with-models.Dockerfile --tag triton-with-models:1 .shoal
FROM nvcr.io/nvidia/tritonserver:26.04-py3
COPY models /models
USER 65532:65532
