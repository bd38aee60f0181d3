# A server, tracking on its CPUs: docker build -f docker/server.Dockerfile -t maskring .
# hadolint global ignore=DL3008,DL3066
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir -c constraints.txt scikit-build-core nanobind cmake ninja \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheels .

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home maskring
COPY --from=build /wheels /wheels
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir -c /tmp/constraints.txt /wheels/*.whl
USER maskring
ENV ORT_DISABLE_TELEMETRY=1
WORKDIR /home/maskring
ENTRYPOINT ["maskring"]
CMD ["doctor"]
