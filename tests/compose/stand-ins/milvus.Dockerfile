# Stands in for milvusdb/milvus where no registry can be reached: the real, older server out of its Python package.
ARG BUILD_BASE
FROM ${BUILD_BASE}
RUN python3 -m venv /opt/milvus && /opt/milvus/bin/pip install --no-cache-dir milvus==2.3.5
COPY milvus_server.py /milvus_server.py
CMD ["/opt/milvus/bin/python", "/milvus_server.py"]
