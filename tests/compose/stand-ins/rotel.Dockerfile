# Stands in for the OpenTelemetry Collector: another collector, out of its Python package. It hands on what it gets.
ARG BUILD_BASE
FROM ${BUILD_BASE}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libpython3.11 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/rotel && /opt/rotel/bin/pip install --no-cache-dir --no-deps rotel==0.0.1a15 \
 && ln -s /opt/rotel/lib/python3*/site-packages/rotel/rotel-agent /usr/local/bin/rotel-agent && chmod +x /usr/local/bin/rotel-agent
ENTRYPOINT ["rotel-agent", "start", "--otlp-grpc-endpoint", "0.0.0.0:4317", "--exporter", "otlp", \
            "--otlp-exporter-endpoint", "http://jaeger:4317", "--otlp-exporter-protocol", "grpc"]
