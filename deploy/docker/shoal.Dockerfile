# Shoal itself: everything that `shoal serve …` runs in a cluster. From the repository's root:
#   docker build --file deploy/docker/shoal.Dockerfile --tag shoal:0.1.0 .

# The same bytes at every build, for every platform that the tag has. Of a newer one, the digest is what this says:
#   docker buildx imagetools inspect python:3.13-slim-trixie --format '{{json .Manifest.Digest}}'
ARG PYTHON=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${PYTHON} AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
ARG WANTED='.[router,batcher,worker,model-sync,tracing]'
# Where one requirement has a hash, pip wants one for each: so Shoal itself comes as a wheel, with its own.
RUN python -m pip install --no-cache-dir --constraint constraints.txt setuptools \
 && python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && sum="$(sha256sum /wheel/*.whl)" \
 && echo "shoal${WANTED#.} @ file://${sum#*  } --hash=sha256:${sum%% *}" > shoal.txt \
 && python -m venv --without-pip /opt/shoal \
 && python -m pip --python /opt/shoal/bin/python install --no-cache-dir --constraint constraints.txt --requirement shoal.txt

# The same base: it has the shared libpython that the batcher's fast front needs.
FROM ${PYTHON}
LABEL org.opencontainers.image.title="Shoal" \
      org.opencontainers.image.description="Image inference that batches references before the load balancer." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 65532 shoal \
 && useradd --uid 65532 --gid 65532 --home-dir /var/lib/shoal --no-create-home --shell /usr/sbin/nologin shoal \
 && install --directory --owner 65532 --group 65532 --mode 0700 /var/lib/shoal \
 && python -m pip uninstall --yes --root-user-action ignore pip
COPY --from=build /opt/shoal /opt/shoal
# The root file system may be read-only: SHOAL_HOME is all that is written to, and a volume in a pod.
ENV PATH=/opt/shoal/bin:$PATH \
    SHOAL_HOME=/var/lib/shoal \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["shoal"]
CMD ["--help"]
