# syntax=docker/dockerfile:1
# docker build -t softrec .                        GPU image
# docker build -t softrec:cpu --target cpu .       CPU image
# Then, the folder being writable by user 10001:
#   docker run --gpus all -v ./shop:/shop -p 8000:8000 softrec
#   docker run -v ./shop:/shop -p 8000:8000 softrec:cpu

FROM python:3.11-slim-bookworm AS runtime
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONUNBUFFERED=1 \
    HF_HOME=/models \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/softrec/bin:$PATH
# libgomp: OpenMP of torch and faiss. gcc is for the GPU image, where Triton builds small launchers as the engine starts
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev libgomp1 libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/softrec \
    && useradd --no-log-init --uid 10001 --create-home --shell /usr/sbin/nologin softrec \
    && install --directory --owner softrec --group softrec /shop /models
EXPOSE 8000
VOLUME ["/shop"]
STOPSIGNAL SIGTERM
# An engine takes half a minute on a CPU, and longer for a large base on a GPU
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["softrec"]
CMD ["serve", "/shop", "--host", "0.0.0.0", "--port", "8000"]

# The code apart from its parts: a changed line of ours leaves the gigabytes of parts in the cache
FROM runtime AS code
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY index index
COPY training training
COPY serving serving
COPY clients clients
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM runtime AS cpu
COPY requirements/cpu.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --no-deps --requirement /tmp/requirements.txt
RUN --mount=type=bind,from=code,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
USER softrec
WORKDIR /shop

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements/gpu.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --no-deps --requirement /tmp/requirements.txt
RUN --mount=type=bind,from=code,source=/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
USER softrec
WORKDIR /shop
