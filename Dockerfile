# The gateway with the example chat. For your application: FROM this image, COPY it, and name it in the command.
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY stickygw ./stickygw
# Wheels only: nothing here needs a compiler.
RUN python -m venv /opt/stickygw \
 && /opt/stickygw/bin/pip install --no-cache-dir --only-binary=:all: hatchling \
 && /opt/stickygw/bin/pip install --no-cache-dir --no-build-isolation --only-binary=:all: . \
 && /opt/stickygw/bin/pip uninstall --yes hatchling pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/stickygw stickygw
COPY --from=build /opt/stickygw /opt/stickygw
COPY examples /srv/examples
ENV PATH=/opt/stickygw/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STICKYGW_RUNTIME_DIR=/tmp/stickygw \
    STICKYGW_STATE_DIR=/var/lib/stickygw/state
WORKDIR /srv
USER stickygw
EXPOSE 8000
# Start it with an init as process 1 (docker run --init; compose: init: true), which reaps orphans.
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["stickygw"]
CMD ["run", "examples/chat/app.py:app", "--bind", "0.0.0.0:8000"]
