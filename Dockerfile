# The proxy alone, as a small image: docker build -t llmproxy .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt setup.py build_backend.py mypyc.ini README.md LICENSE ./
COPY llmproxy ./llmproxy
# The hot path compiled: the image needs no compiler to run it.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && \
    python -m venv /opt/llmproxy && \
    LLMPROXY_COMPILE=1 /opt/llmproxy/bin/pip install --no-cache-dir -c constraints.txt '.[redis,jwt,gpu]'

FROM python:3.11-slim
COPY --from=build /opt/llmproxy /opt/llmproxy
ENV PATH=/opt/llmproxy/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --no-create-home llmproxy
USER llmproxy
EXPOSE 8080 8081
# SIGTERM drains: give the container longer to stop than server.drain_timeout.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/livez', timeout=2)"]
ENTRYPOINT ["llmproxy"]
CMD ["serve", "--config", "/etc/llmproxy/proxy.yaml"]
