# JetPack 6 (L4T r36): docker build -f docker/jetson.Dockerfile -t maskring-jetson .
# Run with: docker run --runtime nvidia --rm -it maskring-jetson doctor
# JetPack 7, or a server's GPU: --build-arg BASE=nvcr.io/nvidia/tensorrt:RELEASE-py3 --build-arg ARCHITECTURES=110 (or
# the server's), and --gpus all to run it.
# hadolint global ignore=DL3008,DL3066
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
# The GPU's compute capability: 87 for Orin, 110 for Thor. Several, as in "87;110", take longer and make a larger image.
ARG ARCHITECTURES=87
# Its major version is that of CUDA: 12 in JetPack 6, 13 in JetPack 7.
ARG CUDA_BINDINGS="cuda-bindings<13"
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libgl1 libglib2.0-0 make python3-dev python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python3 -m pip install --no-cache-dir 'scikit-build-core>=0.10' 'nanobind>=2.4' 'cmake>=3.26' 'ninja>=1.11' \
 && python3 -m pip install --no-cache-dir --no-build-isolation \
    --config-settings=cmake.define.MASKRING_CUDA_ARCHITECTURES="${ARCHITECTURES}" . \
 && python3 -m pip install --no-cache-dir 'polygraphy>=0.53' "${CUDA_BINDINGS}" \
 && useradd --create-home maskring
USER maskring
ENV ORT_DISABLE_TELEMETRY=1
WORKDIR /home/maskring
ENTRYPOINT ["maskring"]
CMD ["doctor"]
