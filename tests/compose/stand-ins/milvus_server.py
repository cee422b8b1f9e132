"""Runs the Milvus server of the package `milvus` until SIGTERM."""

import signal

from milvus import MilvusServer, MilvusServerConfig

server = MilvusServer(MilvusServerConfig(data_dir="/var/lib/milvus", proxy_port=19530))
server.start()
signal.sigwait({signal.SIGTERM, signal.SIGINT})
server.stop()
